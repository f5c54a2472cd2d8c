"""Manifests that Kubernetes or Kueue would refuse: one line names file, document and path, and nothing is converted."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.sim import kueue
from scheduler.sim.kueue_documents import KueueError
from tests.sim.kueue_manifests import GPU, group, manifest, pods, queue, thing, workload

RESOURCE = "spec.resourceGroups[0].flavors[0].resources[0]"


def amounts(**fields: Any) -> list[Any]:
    cohort = fields.pop("cohort", "c")
    return queue("a", group({"h200": {GPU: {"nominalQuota": 4, **fields}}}), cohort=cohort)


def refusal(*parts: Any) -> str:
    with pytest.raises(KueueError) as caught:
        kueue.convert({"all.yaml": manifest(*parts)})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        pytest.param(amounts(nominalQuota=-1), f"{RESOURCE}.nominalQuota: must be 0 or more, not -1", id="a negative quota"),
        pytest.param(
            amounts(nominalQuota="4GB"),
            f"{RESOURCE}.nominalQuota: must be a quantity such as 4, 500m or 36Gi, not '4GB'",
            id="no quantity",
        ),
        pytest.param(amounts(nominalQuota=None), f"{RESOURCE}.nominalQuota: is required", id="no nominal quota"),
        pytest.param(amounts(lendingLimit=5), f"{RESOURCE}.lendingLimit: is more than nominalQuota", id="lends more than it has"),
        pytest.param(
            amounts(borrowingLimit=1, cohort=None),
            f"{RESOURCE}.borrowingLimit: there is nobody to share with without a cohort above",
            id="borrows from nobody",
        ),
        pytest.param(
            queue("a", group({"h200": {GPU: 1}}), group({"h200": {"cpu": 1}})),
            "spec.resourceGroups[1].flavors[0].name: h200 stands twice; a flavor belongs to one resource group",
            id="a flavor in two groups",
        ),
        pytest.param(
            queue("a", group({"h200": {GPU: 1}}), group({"l40s": {GPU: 1}})),
            f"spec.resourceGroups[1].coveredResources: {GPU} stands twice; a resource belongs to one resource group",
            id="a resource in two groups",
        ),
        pytest.param(
            queue("a", group({"h200": {GPU: 1}}) | {"coveredResources": ["cpu"]}),
            f"{RESOURCE}.name: {GPU} does not stand in coveredResources",
            id="a quota that is not covered",
        ),
        pytest.param(queue("a", preemption={"withinClusterQueue": "Any"}), "spec.preemption.withinClusterQueue: must be one of", id="word"),
        pytest.param(
            queue("a", preemption={"borrowWithinCohort": {"policy": "LowerPriority"}}),
            "spec.preemption.borrowWithinCohort: needs reclaimWithinCohort other than Never",
            id="borrows by preemption without reclaim",
        ),
        pytest.param(queue("a", cohort="C"), "spec.cohortName: must be a name of", id="no name"),
    ],
)
def test_queue_that_kueue_refuses_is_refused(parts: list[Any], message: str) -> None:
    assert refusal(parts).startswith(f"all.yaml: document 1 (ClusterQueue a): {message}")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        pytest.param(
            {"metadata": {"name": "x", "creationTimestamp": "noon"}}, "metadata.creationTimestamp: must be a time such as", id="time"
        ),
        pytest.param(
            {"metadata": {"name": "x", "creationTimestamp": "0001-01-01T00:00:00Z"}},
            "metadata.creationTimestamp: must lie between 1970 and 2200",
            id="no time at all",
        ),
        pytest.param({"metadata": {"generateName": "x-"}}, "metadata.name: is required", id="no name"),
        pytest.param({"metadata": {"name": ""}}, "metadata.name: is required", id="an empty name"),
        pytest.param({"metadata": "x"}, "metadata: must be a mapping, not str", id="no metadata"),
        pytest.param({"spec": {"podSets": {}}}, "spec.podSets: must be a list, not dict", id="no list"),
        pytest.param({"spec": {"podSets": [pods(-1)]}}, "spec.podSets[0].count: must be between 0 and 2147483647, not -1", id="negative"),
        pytest.param({"spec": {"podSets": [pods(True)]}}, "spec.podSets[0].count: must be an integer, not bool", id="true pods"),
        pytest.param(
            {"spec": {"podSets": [pods(gpu="-1")]}},
            f"spec.podSets[0].template.spec.containers[0].resources.requests.{GPU}: must be 0 or more, not -1",
            id="a negative request",
        ),
        pytest.param({"spec": {"priority": 2**31}}, "spec.priority: must be between", id="priority"),
        pytest.param({"spec": {"active": "yes"}}, "spec.active: must be true or false, not str", id="no flag"),
    ],
)
def test_workload_that_kubernetes_refuses_is_refused(part: dict[str, Any], message: str) -> None:
    job = workload("x", pods(gpu=1)) | part
    assert message in refusal(job)


def test_cohorts_in_a_ring_are_refused() -> None:
    ring = [thing("Cohort", name, {"parentName": parent}) for name, parent in (("x", "y"), ("y", "z"), ("z", "y"))]
    assert refusal(*ring) == "all.yaml: document 1 (Cohort x): spec.parentName: its cohorts form a ring: x > y > z > y"


def test_cohorts_too_deep_are_refused() -> None:
    chain = [thing("Cohort", f"c{at}", {"parentName": f"c{at + 1}"}) for at in range(16)]
    assert refusal(*chain) == "all.yaml: document 1 (Cohort c0): spec.parentName: lies more than 15 levels deep"


def test_limit_of_a_root_cohort_is_refused() -> None:
    root = thing("Cohort", "c", {"resourceGroups": [group({"h200": {GPU: {"nominalQuota": 1, "lendingLimit": 1}}})]})
    assert (
        refusal(root) == f"all.yaml: document 1 (Cohort c): {RESOURCE}.lendingLimit: there is nobody to share with without a cohort above"
    )


def test_old_and_new_name_of_a_field_together_are_refused() -> None:
    assert refusal(queue("a", cohort="c")[0] | {"spec": {"cohort": "c", "cohortName": "c"}}).endswith(
        "spec.cohort: stands beside cohortName, which is its newer name"
    )


def test_object_that_stands_twice_is_refused() -> None:
    assert refusal(queue("a"), queue("a")) == "all.yaml: document 3 (ClusterQueue a): metadata.name: stands twice in the files"


def test_second_configuration_is_refused() -> None:
    part = {"apiVersion": "config.kueue.x-k8s.io/v1beta1", "kind": "Configuration"}
    assert refusal(part, part) == (
        "all.yaml: document 2 (Configuration): is a second Configuration, the first is all.yaml: document 1 (Configuration)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "f.yaml: document 1: is not YAML: line 2, column 1: did not find", id="no YAML"),
        pytest.param("apiVersion: v1", "f.yaml: document 1: kind: is required", id="no kind"),
        pytest.param("kind: A", "f.yaml: document 1: apiVersion: is required", id="no version"),
        pytest.param("---\n---\nb: {{ .Values.b }}", "f.yaml: document 2: is not YAML: line 3, column 5", id="a template"),
        pytest.param("apiVersion: v1\nkind: A\nkind: B", "f.yaml: document 1: is not YAML: line 1, column 1: kind stands", id="twice"),
        pytest.param("- 1", "f.yaml: document 1: must be a mapping with apiVersion and kind, not list", id="a list"),
        pytest.param("kind: List\napiVersion: v1\nitems: [1]", "f.yaml: document 1: items[0]: must be a mapping, not int", id="no items"),
        pytest.param("a: !!python/object:os.system 1", "f.yaml: document 1: is not YAML", id="a constructor"),
        pytest.param("a: !!int ''", "f.yaml: document 1: cannot be read", id="a number that is none"),
        pytest.param("a: !!bool x", "f.yaml: document 1: cannot be read", id="a truth that is none"),
        pytest.param(
            "a: !!map [a]", "f.yaml: document 1: is not YAML: line 1, column 4: a mapping was announced", id="a mapping that is none"
        ),
        pytest.param("&a [*a]", "f.yaml: document 1: line 1, column 5: aliases and merge keys are not read", id="an alias"),
        pytest.param("a: 1\n---\n<<: {a: 1}", "f.yaml: document 2: line 3, column 1: aliases and merge keys", id="a merge key"),
        pytest.param("!!merge x: {a: 1}", "f.yaml: document 1: line 1, column 1: aliases and merge keys", id="a merge key by its tag"),
        pytest.param("[" * 99 + "]" * 99, "f.yaml: document 1: holds more than 5000000 values or 64 levels", id="brackets by the hundred"),
        pytest.param("[" * 100_000, "f.yaml: document 1: holds more than 1000 levels", id="brackets by the thousand"),
        pytest.param("a: " + "1" * 5000, "f.yaml: document 1: ", id="digits by the thousand"),
        pytest.param("{1: 2, apiVersion: v1, kind: A}", "f.yaml: document 1: has a key that is no text: 1", id="a key that is no text"),
    ],
)
def test_file_that_holds_no_manifest_is_refused(text: str, message: str) -> None:
    with pytest.raises(KueueError) as caught:
        kueue.convert({"f.yaml": text})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
