"""What a pod asks for and which flavors it may get, as Kubernetes and Kueue count it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.kueue_manifests import GPU, converted, flavor, group, notes, pods, queue, workload

BIG = queue("a", group({"h200": {"cpu": 99, "memory": "99Gi", GPU: 99}}))
FLAVORS = [
    flavor("spot", nodeLabels={"tier": "spot"}, nodeTaints=[{"key": "spot", "value": "true", "effect": "NoSchedule"}]),
    flavor("h200", nodeLabels={"gpu": "h200"}),
    flavor("l40s", nodeLabels={"gpu": "l40s", "gen": "7"}, nodeTaints=[{"key": "old", "effect": "PreferNoSchedule"}]),
    flavor("mig", nodeLabels={"gpu": "mig"}, nodeTaints=[{"key": "cut", "effect": "NoExecute"}], tolerations=[{"operator": "Exists"}]),
]
ALL_FLAVORS = queue("a", group({each["metadata"]["name"]: {GPU: 4} for each in FLAVORS}))


def cpus(pod: dict[str, Any]) -> float | int:
    found = converted(flavor(), BIG, workload("x", {"count": 1, "template": {"spec": pod}}))["jobs"][0]
    return float(found["cpus"])


def container(cpu: Any = None, *, limit: Any = None, **more: Any) -> dict[str, Any]:
    resources = {key: {"cpu": value} for key, value in (("requests", cpu), ("limits", limit)) if value is not None}
    return {"name": "c", "resources": resources, **more}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param({"containers": [container(1), container("500m"), container()]}, 1.5, id="containers add up"),
        pytest.param({"containers": [container(1, limit=8)]}, 1, id="a request wins over a limit"),
        pytest.param({"containers": [container(limit=8)]}, 8, id="a limit alone stands for a request"),
        pytest.param({"containers": [container(2)], "initContainers": [container(3), container(1)]}, 3, id="the largest init container"),
        pytest.param({"containers": [container(2)], "initContainers": [container(1)]}, 2, id="init containers are gone by then"),
        pytest.param(
            {"containers": [container(2)], "initContainers": [container(1, restartPolicy="Always"), container(4)]},
            5,
            id="a sidecar beside a later init container",
        ),
        pytest.param(
            {"containers": [container(2)], "initContainers": [container(4), container(1, restartPolicy="Always")]},
            4,
            id="a sidecar after an init container",
        ),
        pytest.param(
            {"containers": [container(1)], "initContainers": [container(4, restartPolicy="Always")]}, 5, id="a sidecar counts once"
        ),
        pytest.param({"containers": [container(2)], "overhead": {"cpu": "250m"}}, 2.25, id="the overhead of its runtime"),
        pytest.param({"containers": [container(2)], "resources": {"requests": {"cpu": 6}}}, 6, id="a request for the whole pod"),
    ],
)
def test_request_of_a_pod(pod: dict[str, Any], expected: float) -> None:
    assert cpus(pod) == expected


def affinity(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def needs(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


UNTAINTED = ["h200", "l40s", "mig"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param({}, UNTAINTED, id="no demands"),
        pytest.param({"tolerations": [{"key": "spot", "operator": "Exists"}]}, ["spot", *UNTAINTED], id="a taint is tolerated"),
        pytest.param({"tolerations": [{"key": "spot", "value": "true"}]}, ["spot", *UNTAINTED], id="by its value"),
        pytest.param({"tolerations": [{"key": "spot", "value": "false"}]}, UNTAINTED, id="by another value"),
        pytest.param(
            {"tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]}, ["spot", *UNTAINTED], id="for its effect"
        ),
        pytest.param({"tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoExecute"}]}, UNTAINTED, id="for another effect"),
        pytest.param({"nodeSelector": {"gpu": "l40s"}}, ["l40s"], id="a label that one flavor has"),
        pytest.param({"nodeSelector": {"zone": "a"}}, UNTAINTED, id="a label that no flavor has"),
        pytest.param(affinity([needs("gpu", "In", "h200", "mig")]), ["h200", "mig"], id="in"),
        pytest.param(affinity([needs("gpu", "NotIn", "h200")]), ["l40s", "mig"], id="not in"),
        pytest.param(affinity([needs("gen", "Exists")]), ["l40s"], id="exists"),
        pytest.param(affinity([needs("gen", "DoesNotExist")]), ["h200", "mig"], id="does not exist"),
        pytest.param(affinity([needs("gen", "Gt", "6")]), ["l40s"], id="greater"),
        pytest.param(affinity([needs("gpu", "In", "h200"), needs("zone", "In", "a")]), ["h200"], id="other labels are passed over"),
        pytest.param(affinity([needs("gpu", "In", "h200")], [needs("zone", "In", "a")]), UNTAINTED, id="an alternative about other labels"),
        pytest.param(affinity([needs("gpu", "In", "h200")], [needs("gen", "Lt", "8")]), ["h200", "l40s"], id="either of two"),
    ],
)
def test_flavors_that_a_pod_may_get(template: dict[str, Any], expected: list[str]) -> None:
    found = converted(*FLAVORS, ALL_FLAVORS, workload("x", pods(gpu=1, template=template)))["jobs"][0]["gpu_model"]
    assert found == (expected[0] if len(expected) == 1 else expected)


def test_all_pods_with_gpus_must_match() -> None:
    parts = [
        pods(gpu=1, template=affinity([needs("gpu", "In", "h200", "l40s")])),
        pods(1, "p1", gpu=1, template={"nodeSelector": {"gpu": "l40s"}}),
    ]
    found = converted(*FLAVORS, ALL_FLAVORS, workload("x", *parts, pods(1, "p2", cpu=1, template={"nodeSelector": {"gpu": "mig"}})))
    assert found["jobs"][0]["gpu_model"] == "l40s"


def test_workload_that_matches_no_flavor_is_left_out() -> None:
    parts = [*FLAVORS, ALL_FLAVORS, workload("x", pods(gpu=1, template={"nodeSelector": {"gpu": "tpu"}}))]
    assert "jobs" not in converted(*parts)
    reason = "no flavor of ClusterQueue a matches the node selector, affinity and tolerations of its pods"
    assert notes(*parts) == [f"all.yaml: document 7 (Workload x): spec.podSets: the workload is left out: {reason}"]
