"""Whole conversions: what a set of manifests becomes, field by field."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from scheduler.sim import kueue
from scheduler.sim.kueue_documents import KueueError
from tests.sim.kueue_manifests import GPU, admitted, converted, flavor, group, manifest, pods, queue, thing, workload

POLICY = {"fair_sharing": False, "fair_share_half_life": 0, "backfill_depth": 0, "victims": "kueue"}
AMOUNTS = {"nominalQuota": 4, "borrowingLimit": 2, "lendingLimit": 3}


def fleet(version: str, cohort_key: str, parent_key: str, fungibility: dict[str, str]) -> list[Any]:
    """Return one fleet in the words of one version."""
    spec = {
        "namespaceSelector": {},
        cohort_key: "vision",
        "fairSharing": {"weight": "2"},
        "flavorFungibility": fungibility,
        "preemption": {
            "reclaimWithinCohort": "Any",
            "withinClusterQueue": "LowerOrNewerEqualPriority",
            "borrowWithinCohort": {"policy": "LowerPriority", "maxPriorityThreshold": 100},
        },
        "resourceGroups": [group({"h200": {"cpu": "64", "memory": "36Gi", GPU: AMOUNTS}})],
    }
    root = thing("Cohort", "all", {"resourceGroups": [group({"h200": {GPU: 8}})]}, version=version)
    child = thing("Cohort", "vision", {parent_key: "all", "fairSharing": {"weight": "0.75"}}, version=version)
    local = thing("LocalQueue", "main", {"clusterQueue": "a"}, version=version, metadata={"namespace": "team"})
    return [flavor(), root, child, thing("ClusterQueue", "a", spec, version=version), local]


def with_jobs(fleet: list[Any], priority: dict[str, Any]) -> list[Any]:
    train = workload(
        "train",
        pods(2, cpu="500m", memory="200Mi", gpu=2),
        queue="main",
        created="2026-03-01T09:00:00Z",
        status=admitted("a", "2026-03-01T09:05:00Z", "h200"),
    )
    tune = workload("tune", pods(gpu=1), queue="main", created="2026-03-01T09:04:00Z", maximumExecutionTimeSeconds=600, **priority)
    return [*fleet, train, tune]


EXPECTED = {
    "scenario": 1,
    "now": 0,
    "policy": POLICY,
    "nodes": [{"name": "h200", "gpu_model": "h200", "gpus": 12, "cpus": 64, "memory_gib": 36}],
    "cohorts": [
        {"name": "all", "quota": {"h200": {"nominal": 8}}},
        {"name": "vision", "parent": "all", "weight": 0.75},
    ],
    "tenants": [
        {
            "name": "a",
            "parent": "vision",
            "weight": 2,
            "quota": {"h200": {"nominal": 4, "borrow": 2, "lend": 3}, "cpus": {"nominal": 64}, "memory_gib": {"nominal": 36}},
            "preemption": {
                "within_tenant": "lower_or_newer_equal",
                "reclaim_within_cohort": "any",
                "borrow_within_cohort": {"policy": "lower_priority", "max_priority": 100},
            },
        }
    ],
    "running": [
        {
            "id": "train", "tenant": "a", "started": 0, "at": -300, "replicas": 2, "gpus": 2, "gpu_model": "h200",
            "cpus": 0.5, "memory_gib": 0.1953125,
        }
    ],
    "jobs": [{"id": "tune", "tenant": "a", "priority": 7, "at": -60, "limit": 600, "gpus": 1, "gpu_model": "h200"}],
}  # fmt: skip


def test_v1beta2_becomes_a_scenario() -> None:
    parts = fleet("kueue.x-k8s.io/v1beta2", "cohortName", "parentName", {"whenCanBorrow": "MayStopSearch"})
    reference = {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass", "name": "urgent"}
    assert converted(*with_jobs(parts, {"priority": 7, "priorityClassRef": reference})) == EXPECTED


def test_v1beta1_becomes_the_same_scenario() -> None:
    parts = fleet("kueue.x-k8s.io/v1beta1", "cohort", "parent", {"whenCanBorrow": "Borrow", "whenCanPreempt": "TryNextFlavor"})
    priority = {"priority": 7, "priorityClassName": "urgent", "priorityClassSource": "kueue.x-k8s.io/workloadpriorityclass"}
    assert converted(*with_jobs(parts, priority)) == EXPECTED


def test_documents_lists_and_files_are_all_read() -> None:
    parts = with_jobs(fleet("kueue.x-k8s.io/v1beta2", "cohortName", "parentName", {}), {"priority": 7})
    listed = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": parts[3:5]})
    typed = yaml.safe_dump({"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadList", "metadata": {}, "items": parts[5:]})
    texts = {"a.yaml": "---\n" + manifest(*parts[:3]), "b.json": listed, "c.yaml": f"---\n---\n{typed}"}
    assert kueue.convert(texts).scenario == EXPECTED


def test_text_of_the_scenario_says_what_the_mapping_says() -> None:
    assert yaml.safe_load(kueue.to_yaml(EXPECTED)) == EXPECTED


def test_flavors_become_models_in_their_order() -> None:
    cluster_queue = queue("a", group({"h200": {GPU: 2}, "spot": {GPU: 4}}))
    found = converted(flavor("spot"), flavor("h200"), cluster_queue, workload("x", pods(gpu=1)))
    assert found["tenants"][0]["quota"] == {"h200": {"nominal": 2}, "spot": {"nominal": 4}}
    assert found["jobs"][0]["gpu_model"] == ["h200", "spot"]
    assert [(node["gpu_model"], node["gpus"]) for node in found["nodes"]] == [("h200", 2), ("spot", 4)]


def test_any_resource_can_stand_for_gpus() -> None:
    cluster_queue = queue("a", group({"on-demand": {"cpu": "2500m"}, "spot": {"cpu": 6}}))
    found = converted(cluster_queue, workload("x", pods(3, cpu=1)), gpu_resource="cpu")
    assert found["tenants"][0]["quota"] == {"on-demand": {"nominal": 2.5}, "spot": {"nominal": 6}}
    assert found["jobs"] == [{"id": "x", "tenant": "a", "replicas": 3, "gpus": 1, "gpu_model": ["on-demand", "spot"]}]


def test_queues_without_gpus_keep_cpus_and_memory() -> None:
    found = converted(queue("a", group({"default": {"cpu": 9, "memory": "36Gi"}})), workload("x", pods(3, cpu=1, memory="200Mi")))
    assert found["nodes"] == [{"name": "node", "cpus": 9, "memory_gib": 36}]
    assert found["tenants"][0]["quota"] == {"cpus": {"nominal": 9}, "memory_gib": {"nominal": 36}}
    assert found["jobs"] == [{"id": "x", "tenant": "a", "replicas": 3, "gpus": 0, "cpus": 1, "memory_gib": 0.1953125}]


def test_cohort_without_an_object_has_no_quota_of_its_own() -> None:
    found = converted(queue("a", group({"h200": {GPU: 1}}), cohort="ab"), thing("Cohort", "x", {"parentName": "y"}))
    assert found["cohorts"] == [{"name": "x", "parent": "y"}, {"name": "y"}, {"name": "ab"}]


def test_cohort_called_like_a_queue_gets_a_name_of_its_own() -> None:
    found = converted(queue("a", group({"h200": {GPU: 1}}), cohort="a"), thing("Cohort", "a", {}))
    assert found["cohorts"] == [{"name": "cohort:a"}]
    assert found["tenants"][0]["parent"] == "cohort:a"


def test_flavors_called_like_another_field_get_a_name_of_their_own() -> None:
    found = converted(queue("a", group({"cpu": {GPU: 1, "cpu": 3}, "any": {GPU: 2, "cpu": 1}})), workload("x", pods(gpu=1)))
    assert found["tenants"][0]["quota"] == {"flavor:cpu": {"nominal": 1}, "flavor:any": {"nominal": 2}, "cpus": {"nominal": 4}}
    assert found["jobs"][0]["gpu_model"] == ["flavor:cpu", "flavor:any"]


def test_cpus_and_memory_of_several_flavors_are_added_up() -> None:
    first = {
        GPU: 1,
        "cpu": {"nominalQuota": 4, "lendingLimit": 1, "borrowingLimit": 2},
        "memory": {"nominalQuota": "1Gi", "lendingLimit": 0},
    }
    second = {GPU: 1, "cpu": {"nominalQuota": 8, "borrowingLimit": 3}, "memory": {"nominalQuota": "2Gi"}}
    quota = converted(queue("a", group({"h200": first, "l40s": second}), cohort="c"))["tenants"][0]["quota"]
    assert quota["cpus"] == {"nominal": 12, "borrow": 5, "lend": 9}
    assert quota["memory_gib"] == {"nominal": 3, "lend": 2}


def test_one_flavor_without_a_limit_makes_the_sum_unlimited() -> None:
    limited = {GPU: 1, "cpu": {"nominalQuota": 4, "borrowingLimit": 2, "lendingLimit": 1}}
    groups = [group({"h200": limited, "l40s": {GPU: 1, "cpu": 8}})]
    found = converted(queue("a", *groups, cohort="c"), thing("Cohort", "c", {"parentName": "all", "resourceGroups": groups}))
    assert found["tenants"][0]["quota"]["cpus"] == {"nominal": 12, "lend": 9}
    assert found["cohorts"][0]["quota"]["cpus"] == {"nominal": 12}


def test_parts_of_a_gpu_get_a_device_each() -> None:
    found = converted(queue("a", group({"vm": {"cpu": 1}})), workload("x", pods(2, cpu="500m")), gpu_resource="cpu")
    assert found["nodes"] == [{"name": "vm", "gpu_model": "vm", "gpus": 3}]
    assert found["jobs"][0]["gpus"] == 0.5


def test_nodes_of_a_large_fleet_have_names_of_their_own() -> None:
    found = converted(queue("a", group({"gpu": {GPU: 300}, "gpu-0": {GPU: 1}})), workload("x", pods(40, gpu=8)))
    assert [(node["name"], node.get("count", 1), node["gpus"]) for node in found["nodes"]] == [("gpu", 2, 256), ("node:gpu-0", 1, 1)]


def test_cohort_of_v1alpha1_is_read() -> None:
    cohort = thing("Cohort", "x", {"parent": "y"}, version="kueue.x-k8s.io/v1alpha1")
    assert converted(cohort)["cohorts"] == [{"name": "x", "parent": "y"}, {"name": "y"}]


def test_memory_that_no_quota_limits_is_on_every_node() -> None:
    found = converted(queue("a", group({"h200": {GPU: 4}})), workload("x", pods(2, gpu=1, memory="1500Mi")))
    assert found["nodes"] == [{"name": "h200", "gpu_model": "h200", "gpus": 4, "memory_gib": 3}]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"whenCanBorrow": "TryNextFlavor"}, {"flavor_fungibility": {"when_can_borrow": "try_next_flavor"}}),
        ({"whenCanPreempt": "Preempt"}, {"flavor_fungibility": {"when_can_preempt": "preempt"}}),
        ({"whenCanPreempt": "MayStopSearch"}, {"flavor_fungibility": {"when_can_preempt": "preempt"}}),
        ({"whenCanBorrow": "Borrow", "whenCanPreempt": "TryNextFlavor"}, {}),
    ],
    ids=["borrows last", "preempts first", "may stop its search", "as by default"],
)
def test_choice_among_flavors_is_kept(said: dict[str, str], kept: dict[str, Any]) -> None:
    tenant = converted(queue("a", group({"h200": {GPU: 1}, "l40s": {GPU: 1}}), flavorFungibility=said))["tenants"][0]
    assert {key: value for key, value in tenant.items() if key == "flavor_fungibility"} == kept


def test_choice_among_flavors_in_a_word_of_the_other_choice_is_refused() -> None:
    with pytest.raises(KueueError, match="whenCanBorrow"):
        converted(queue("a", group({"h200": {GPU: 1}}), flavorFungibility={"whenCanBorrow": "Preempt"}))
