"""Kueue's manifests become quotas: a rehearsal says what would change, the import does all of it or nothing, and again changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from api import kueue_import
from tests.support.api import Api, problem_of

COHORTS = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: Cohort
metadata: {name: research}
spec:
  fairSharing: {weight: "2"}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: h200, resources: [{name: nvidia.com/gpu, nominalQuota: 2}]}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: Cohort
metadata: {name: vision}
spec: {parentName: research}
"""
QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: acme}
spec:
  cohortName: vision
  namespaceSelector: {}
  preemption: {reclaimWithinCohort: Any, withinClusterQueue: LowerPriority}
  flavorFungibility: {whenCanBorrow: TryNextFlavor}
  resourceGroups:
  - coveredResources: [cpu, nvidia.com/gpu]
    flavors:
    - name: h200
      resources:
      - {name: cpu, nominalQuota: 64}
      - {name: nvidia.com/gpu, nominalQuota: 8, borrowingLimit: 4, lendingLimit: 3}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: newcomer}
spec:
  cohortName: research
  namespaceSelector: {}
  stopPolicy: Hold
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: h200, resources: [{name: nvidia.com/gpu, nominalQuota: 1}]}]
"""
COHORT = "---\n{{apiVersion: kueue.x-k8s.io/v1beta2, kind: Cohort, metadata: {{name: {name}}}, spec: {spec}}}\n"
BORROWS = "{preemption: {reclaimWithinCohort: Any, borrowWithinCohort: {policy: LowerPriority}}, "
NO_GPU = "{metadata: {name: acme}, apiVersion: kueue.x-k8s.io/v1beta2, kind: ClusterQueue, spec: "


async def send(api: Api, *texts: str, **fields: Any) -> dict[str, Any]:
    body = {"manifests": [{"name": f"{at}.yaml", "text": text} for at, text in enumerate(texts)], **fields}
    answer: dict[str, Any] = await api.operator.change("POST", "/v1/quota-imports", body)
    return answer


async def refused(api: Api, *texts: str, **fields: Any) -> tuple[int, str, str | None, Any]:
    """Send an import that must be refused and change nothing."""
    before = await api.rows()
    body = {"manifests": [{"name": f"{at}.yaml", "text": text} for at, text in enumerate(texts)], **fields}
    answer = await api.operator.post("/v1/quota-imports", body)
    assert await api.rows() == before
    return problem_of(answer)


def brief(answer: dict[str, Any]) -> list[tuple[str, str, str, str | None]]:
    return [(change["action"], change["kind"], change["name"], change["resource"]) for change in answer["changes"]]


EXPECTED = [
    ("create", "cohort", "research", None),
    ("create", "cohort", "vision", None),
    ("change", "tenant", "acme", None),
    ("create", "tenant", "newcomer", None),
    ("create", "quota", "research", "h200"),
    ("change", "quota", "acme", "h200"),
    ("create", "quota", "acme", "cpu"),
    ("create", "quota", "newcomer", "h200"),
    ("change", "rules", "acme", None),
]


async def test_rehearsal_says_what_would_be_and_changes_nothing(api: Api) -> None:
    await api.tenant("acme", gpus=4)
    before = await api.rows()

    answer = await send(api, COHORTS, QUEUES, is_dry_run=True)

    assert (answer["is_applied"], brief(answer)) == (False, EXPECTED)
    assert await api.rows() == before
    quota = next(change for change in answer["changes"] if (change["name"], change["resource"]) == ("acme", "h200"))
    assert quota["before"] == {"nominal": 4_000, "borrowing_limit": None, "lending_limit": None}
    assert quota["after"] == {"nominal": 8_000, "borrowing_limit": 4_000, "lending_limit": 3_000}


async def test_import_does_what_its_rehearsal_said_and_again_nothing(api: Api) -> None:
    await api.tenant("acme", gpus=4)
    rehearsed = await send(api, COHORTS, QUEUES, is_dry_run=True)

    done = await send(api, COHORTS, QUEUES)
    again = await send(api, COHORTS, QUEUES)

    assert done == rehearsed | {"is_applied": True}
    assert again == done | {"changes": []}
    nodes = {node["name"]: node for node in (await api.operator.fetch("/v1/quota-tree"))["nodes"]}
    assert [(node["name"], node["depth"]) for node in nodes.values()] == [
        ("fleet", 0), ("research", 0), ("vision", 1), ("acme", 2), ("newcomer", 1),
    ]  # fmt: skip
    assert nodes["research"]["weight_milli"] == 2_000
    assert [(item["resource"], item["nominal"], item["subtree"]) for item in nodes["research"]["resources"]] == [
        ("cpu", None, 64_000), ("h200", 2_000, 6_000),
    ]  # fmt: skip
    rules = {"within_tenant": "lower_priority", "reclaim_within_cohort": "any", "when_can_borrow": "try_next_flavor"}
    assert {name: nodes["acme"][name] for name in rules} == rules
    assert [(item["resource"], item["nominal"]) for item in nodes["acme"]["resources"]] == [("cpu", 64_000), ("h200", 8_000)]


async def test_what_has_no_counterpart_is_named_and_what_is_not_named_stays(api: Api) -> None:
    await api.tenant("acme")
    await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "l40s", "nominal": 1_000})
    workload = "{apiVersion: kueue.x-k8s.io/v1beta2, kind: LocalQueue, metadata: {name: q, namespace: n}, spec: {clusterQueue: acme}}"

    answer = await send(api, QUEUES, workload)

    lines = "\n".join(answer["left_out"])
    assert "0.yaml: document 2 (ClusterQueue newcomer): spec.stopPolicy: " in lines
    assert "1 x LocalQueue: left out: only quotas are imported" in lines
    assert "acme: its quota of l40s stays: the manifests do not name it" in lines


async def test_cohorts_that_change_places_are_no_ring(api: Api) -> None:
    await send(api, COHORTS)
    turned = COHORTS.replace("parentName: research", "fairSharing: {weight: '3'}").replace(
        "spec:\n  fairS", "spec:\n  parentName: vision\n  fairS"
    )

    answer = await send(api, turned)

    moved = {change["name"]: change["after"] for change in answer["changes"] if change["kind"] == "cohort"}
    assert moved == {"research": {"parent": "vision"}, "vision": {"parent": None, "weight_milli": 3_000}}


async def test_flavor_may_be_said_to_be_a_model(api: Api) -> None:
    named = QUEUES.replace("name: h200", "name: hopper-spot")

    assert await refused(api, named) == (422, "unknown_resource", "models", ["a100", "h100", "h200", "l40s"])
    await send(api, named, models={"hopper-spot": "h200"})

    (quota,) = (await api.operator.fetch("/v1/quotas?tenant=newcomer"))["items"]
    assert (quota["resource"], quota["nominal"]) == ("h200", 1_000)


async def test_preemption_while_borrowing_is_left_out_under_fair_sharing_and_kept_without(api: Api) -> None:
    text = NO_GPU + BORROWS + "cohortName: fleet, namespaceSelector: {}}}"

    fair = await send(api, text, is_dry_run=True)
    await api.operator.change("PATCH", "/v1/policy", {"fair_sharing": False})
    unfair = await send(api, text)

    rules = [change["after"] for answer in (fair, unfair) for change in answer["changes"] if change["kind"] == "rules"]
    assert rules == [{"reclaim_within_cohort": "any"}, {"reclaim_within_cohort": "any", "borrow_within_cohort": "lower_priority"}]
    assert "spec.preemption.borrowWithinCohort: left out: it has no effect under fair sharing" in "\n".join(fair["left_out"])


LENDS_TOO_MUCH = QUEUES.replace("lendingLimit: 3", "lendingLimit: 9")
RING = COHORTS.replace("spec:\n  fairS", "spec:\n  parentName: vision\n  fairS")
REFUSED = {
    "text that is no YAML": ("a: [", "manifest_refused", "manifests"),
    "lending more than nominal": (LENDS_TOO_MUCH, "manifest_refused", "manifests"),
    "a ring of cohorts": (RING, "manifest_refused", "manifests"),
    "a name that cannot be one": (QUEUES.replace("name: acme", "name: acme.example"), "manifest_refused", "manifests"),
    "a weight beyond all bounds": (COHORTS.replace('weight: "2"', 'weight: "1e18"'), "manifest_refused", "manifests"),
    "a field of another type": (QUEUES.replace("nominalQuota: 64", "nominalQuota: []"), "manifest_refused", "manifests"),
}


@pytest.mark.parametrize(("text", "code", "field"), REFUSED.values(), ids=REFUSED)
async def test_manifest_that_kubernetes_would_refuse_changes_nothing(api: Api, text: str, code: str, field: str) -> None:
    assert (await refused(api, COHORTS, text))[:3] == (422, code, field)


async def test_import_that_fails_at_its_last_step_leaves_nothing(api: Api) -> None:
    """The second tenant's cohort lies too deep; everything before it was fine."""
    chain = "".join(COHORT.format(name=f"c{at}", spec=f"{{parentName: c{at - 1}}}" if at else "{}") for at in range(15))
    deep = QUEUES.replace("cohortName: research", "cohortName: c14")

    assert (await refused(api, chain, deep))[:3] == (422, "quota_tree_too_deep", "parent")


async def test_import_has_a_bound(api: Api) -> None:
    many = "".join(COHORT.format(name=f"c{at}", spec="{}") for at in range(kueue_import.NODES_MAXIMUM + 1))

    assert await refused(api, many) == (422, "manifest_refused", "manifests", kueue_import.NODES_MAXIMUM)


async def test_two_files_of_one_name_and_texts_without_bound_are_refused(api: Api) -> None:
    twice = await api.operator.post("/v1/quota-imports", {"manifests": [{"name": "a", "text": ""}] * 2})
    large = await refused(api, "x" * 600_000, "y" * 600_000)

    assert problem_of(twice)[:3] == (422, "invalid_request", "manifests[1].name")
    assert large[:2] == (422, "invalid_request")
