"""What becomes of one workload: running, queued or left out, and what it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.kueue_manifests import GPU, admitted, converted, flavor, group, notes, pods, queue, thing, workload

QUEUE = queue("a", group({"h200": {"cpu": 99, "memory": "99Gi", GPU: 99}}))
NINE, TEN = "2026-03-01T09:00:00Z", "2026-03-01T10:00:00Z"
HELD = admitted("a", NINE, "h200")


def only_job(*parts: Any, section: str = "jobs") -> dict[str, Any]:
    (found,) = converted(flavor(), QUEUE, *parts)[section]
    return dict(found)


def with_condition(status: dict[str, Any], kind: str, value: str) -> dict[str, Any]:
    others = [each for each in status["conditions"] if each["type"] != kind]
    return status | {"conditions": [*others, {"type": kind, "status": value, "lastTransitionTime": NINE}]}


def test_workloads_stand_by_creation_then_name() -> None:
    created = {"c": NINE, "b": TEN, "a": TEN, "d": "2026-03-01T08:59:59.5Z"}
    found = converted(QUEUE, *(workload(name, pods(gpu=1), created=at) for name, at in created.items()))
    assert [(job["id"], job.get("at", 0)) for job in found["jobs"]] == [("d", -3600.5), ("c", -3600), ("a", 0), ("b", 0)]


def test_same_name_in_two_namespaces_is_told_apart() -> None:
    other = thing("LocalQueue", "a", {"clusterQueue": "a"}, metadata={"namespace": "prod"})
    twin = workload("x", pods(gpu=1)) | {"metadata": {"name": "x", "namespace": "prod"}}
    found = converted(QUEUE, other, workload("x", pods(gpu=1)), twin, workload("y", pods(gpu=1)))
    assert [job["id"] for job in found["jobs"]] == ["prod/x", "team/x", "y"]


@pytest.mark.parametrize("created", ["2026-03-01T12:00:00+03:00", "2026-03-01T09:00:00.000Z", "2026-03-01T09:00:00"])
def test_times_of_every_form_lie_on_one_axis(created: str) -> None:
    jobs = [workload("x", pods(gpu=1), created=created), workload("y", pods(gpu=1), created=TEN)]
    assert converted(QUEUE, *jobs)["jobs"][0]["at"] == -3600


@pytest.mark.parametrize(
    ("status", "section"),
    [
        pytest.param(HELD, "running", id="admitted"),
        pytest.param(with_condition(HELD, "Admitted", "False"), "running", id="quota reserved, checks open"),
        pytest.param(with_condition(HELD, "Evicted", "True"), "running", id="leaving, but not gone"),
        pytest.param({"admission": HELD["admission"]}, "running", id="written by hand without conditions"),
        pytest.param(with_condition(HELD, "QuotaReserved", "False"), "jobs", id="quota lost"),
        pytest.param({"conditions": with_condition(HELD, "Evicted", "True")["conditions"][2:]}, "jobs", id="evicted and queued again"),
        pytest.param(None, "jobs", id="no status"),
        pytest.param(with_condition(HELD, "Finished", "True"), None, id="finished"),
    ],
)
def test_conditions_tell_where_a_workload_stands(status: Any, section: str | None) -> None:
    found = converted(QUEUE, workload("x", pods(gpu=1), status=status))
    assert [name for name in ("running", "jobs") if name in found] == ([section] if section else [])


def test_running_workload_started_when_it_got_its_quota_and_may_run_another_day() -> None:
    newer = workload("new", pods(gpu=1), created=TEN)
    found = only_job(workload("x", pods(gpu=1), created="2026-03-01T08:00:00Z", status=HELD), newer, section="running")
    assert found == {"id": "x", "tenant": "a", "at": -7200, "started": -3600, "limit": 90_000, "gpus": 1, "gpu_model": "h200"}


@pytest.mark.parametrize(("spent", "limit"), [({}, 4000), ({"accumulatedPastExecutionTimeSeconds": 300}, 3700)])
def test_execution_time_of_earlier_attempts_is_taken_from_the_limit(spent: dict[str, int], limit: int) -> None:
    parts = [workload("x", pods(gpu=1), status=HELD | spent, maximumExecutionTimeSeconds=4000), workload("y", pods(gpu=1), created=TEN)]
    assert only_job(*parts, section="running")["limit"] == limit


def test_v1beta1_misspells_the_time_spent() -> None:
    status = {"accumulatedPastExexcutionTimeSeconds": 100}
    assert only_job(workload("x", pods(gpu=1), status=status, maximumExecutionTimeSeconds=160))["limit"] == 60


def test_what_kueue_counted_wins_over_the_pods() -> None:
    counted = {"name": "main", "flavors": {GPU: "h200"}, "count": 4, "resourceUsage": {"cpu": "6", GPU: "4", "memory": "4Gi"}}
    status = HELD | {"admission": {"clusterQueue": "a", "podSetAssignments": [counted]}}
    found = only_job(workload("x", pods(8, gpu=1), created=NINE, status=status), section="running")
    assert (found["replicas"], found["gpus"], found["cpus"], found["memory_gib"]) == (4, 1, 1.5, 1)


def test_limit_ranges_counted_for_a_waiting_workload_are_kept() -> None:
    status = {"resourceRequests": [{"name": "main", "resources": {"cpu": "3", GPU: "2"}}]}
    assert only_job(workload("x", pods(2, gpu=1), status=status))["cpus"] == 1.5


def test_pods_that_are_done_hold_nothing() -> None:
    status = HELD | {"reclaimablePods": [{"name": "main", "count": 3}]}
    assert only_job(workload("x", pods(8, gpu=1), created=NINE, status=status), section="running")["replicas"] == 5


def test_priority_comes_from_the_workload_then_from_its_class() -> None:
    classes = [
        thing("WorkloadPriorityClass", "high", {}, value=1000),
        thing("PriorityClass", "pod", {}, version="scheduling.k8s.io/v1", value=7),
    ]
    reference = {"group": "kueue.x-k8s.io", "kind": "WorkloadPriorityClass", "name": "high"}
    jobs = [
        workload("a", pods(gpu=1), priority=2_000_000_000, priorityClassRef=reference),
        workload("b", pods(gpu=1), priorityClassRef=reference),
        workload("c", pods(gpu=1), priorityClassName="pod", priorityClassSource="scheduling.k8s.io/priorityclass"),
        workload("d", pods(gpu=1)),
        workload("e", pods(gpu=1), priorityClassRef=reference | {"name": "gone"}),
    ]
    found = converted(QUEUE, *classes, *jobs)
    assert [job.get("priority", 0) for job in found["jobs"]] == [2_000_000_000, 1000, 7, 0, 0]


def test_equal_pod_sets_become_one_gang() -> None:
    assert only_job(workload("x", pods(gpu=2), pods(3, "p1", gpu=2)))["replicas"] == 4


def test_unequal_pod_sets_become_one_replica_with_their_sum() -> None:
    found = only_job(workload("x", pods(1, cpu=1), pods(3, "p1", cpu=2, gpu=2)))
    assert found == {"id": "x", "tenant": "a", "gpus": 6, "gpu_model": "h200", "cpus": 7}


def test_pods_without_gpus_hold_their_share_beside_the_others() -> None:
    assigned = [{"name": "main", "flavors": {"cpu": "h200"}}, {"name": "p1", "flavors": {"cpu": "h200", GPU: "h200"}}]
    status = HELD | {"admission": {"clusterQueue": "a", "podSetAssignments": assigned}}
    found = only_job(workload("x", pods(cpu=1), pods(2, "p1", cpu=4, gpu=2), created=NINE, status=status), section="running")
    assert (found["gpus"], found["cpus"], found["gpu_model"]) == (4, 9, "h200")


def test_part_of_a_gpu_above_one_becomes_a_whole_with_the_other_pods() -> None:
    cluster_queue = queue("a", group({"any-node": {"cpu": 8}}))
    assert converted(cluster_queue, workload("x", pods(2, cpu="1500m")), gpu_resource="cpu")["jobs"][0]["gpus"] == 3


def test_workload_in_several_flavors_runs_as_several_jobs() -> None:
    cluster_queue = queue("a", group({"h200": {GPU: 4}, "l40s": {GPU: 4}}))
    status = admitted("a", NINE, "l40s", "h200")
    found = converted(cluster_queue, workload("x", pods(2, gpu=1), pods(3, "p1", gpu=1), created=NINE, status=status))
    assert [(job["id"], job["gpu_model"], job["replicas"]) for job in found["running"]] == [("x:l40s", "l40s", 2), ("x:h200", "h200", 3)]


LEFT_OUT = [
    pytest.param({"active": False}, None, "spec.active", "it is not active", id="inactive"),
    pytest.param({"queueName": "none"}, None, "spec.queueName", "there is no LocalQueue none", id="no queue"),
    pytest.param({"queueName": None}, None, "spec.queueName", "it is in no queue", id="not queued"),
    pytest.param({"queueName": "held"}, None, "spec.queueName", "LocalQueue held is stopped", id="held door"),
    pytest.param({"queueName": "stop"}, None, "spec.queueName", "ClusterQueue stop is stopped", id="held queue"),
    pytest.param({}, admitted("gone", NINE, "h200"), "status.admission.clusterQueue", "there is no", id="lost queue"),
    pytest.param({}, admitted("stop", NINE, "h200"), "status.admission", "ClusterQueue stop is drained", id="drained"),
    pytest.param({"podSets": []}, None, "spec.podSets", "it asks for no GPU", id="no pods"),
    pytest.param({"podSets": [pods(0, gpu=1)]}, None, "spec.podSets", "it asks for no GPU", id="zero pods"),
    pytest.param({"podSets": [pods(memory=1)]}, None, "spec.podSets", "it asks for memory alone", id="memory"),
    pytest.param({"podSets": [pods(gpu="1500m")]}, None, "spec.podSets", "no replica", id="one and a half"),
    pytest.param({"podSets": [pods(gpu=257)]}, None, "spec.podSets", "no replica", id="too many for a node"),
    pytest.param(
        {"maximumExecutionTimeSeconds": 60}, HELD, "spec.maximumExecutionTimeSeconds", "its time", id="over time"
    ),
    pytest.param(
        {"maximumExecutionTimeSeconds": 60},
        {"accumulatedPastExecutionTimeSeconds": 60},
        "spec.maximumExecutionTimeSeconds", "earlier attempts",
        id="no time left",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "status", "path", "reason"), LEFT_OUT)
def test_workload_that_kueue_would_not_run_is_left_out_with_the_reason(spec: dict[str, Any], status: Any, path: str, reason: str) -> None:
    held = thing("LocalQueue", "held", {"clusterQueue": "a", "stopPolicy": "Hold"}, metadata={"namespace": "team"})
    stopped = queue("stop", group({"l40s": {GPU: 9}}), stopPolicy="HoldAndDrain")
    bad = workload("x", pods(gpu=1), status=status)
    bad["spec"] |= spec
    parts = [flavor(), QUEUE, held, stopped, bad, workload("y", pods(gpu=1), created=TEN)]
    found = converted(*parts)
    assert [job["id"] for section in ("running", "jobs") for job in found.get(section, [])] == ["y"]
    free = ", and the quota that it holds counts as free" if status and "admission" in status else ""
    start = f"all.yaml: document 7 (Workload x): {path}: the workload is left out{free}: {reason}"
    assert any(note.startswith(start) for note in notes(*parts))


def test_running_workload_of_a_held_queue_keeps_its_quota() -> None:
    stopped = queue("stop", group({"l40s": {GPU: 9}}), stopPolicy="Hold")
    assert only_job(stopped, workload("x", pods(gpu=1), status=admitted("stop", NINE, "l40s")), section="running")["tenant"] == "stop"
