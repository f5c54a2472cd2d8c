"""What Kueue's concept pages say about preemption, decided on the converted manifests."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.sim import kueue, reading
from scheduler.sim.answers import answer
from tests.sim.kueue_manifests import GPU, Object, admitted, group, manifest, pods, queue, workload


def team(name: str, gpus: int, **preemption: Any) -> list[Object]:
    return queue(name, group({"h200": {GPU: gpus}}), cohort="all", preemption=preemption)


def held(name: str, gpus: int, *, queue: str, hour: int = 9, priority: int = 0) -> Object:
    status = admitted(queue, f"2026-03-01T{hour:02}:00:00Z", "h200")
    return workload(name, pods(gpus, gpu=1), queue=queue, created="2026-03-01T00:00:00Z", status=status, priority=priority)


def waits(name: str, gpus: int, *, queue: str, priority: int = 0) -> Object:
    return workload(name, pods(gpus, gpu=1), queue=queue, created="2026-03-01T20:00:00Z", priority=priority)


def preempted(*parts: Any) -> list[tuple[str, str]]:
    """Return (job, cause) of each preemption, all for the job `x`."""
    found = answer(reading.read(kueue.to_yaml(kueue.convert({"all.yaml": manifest(*parts)}).scenario)))
    assert {item["for"] for item in found["preempt"]} <= {"x"}
    return [(item["job"], item["cause"]) for item in found["preempt"]]


@pytest.mark.parametrize(
    ("policy", "priority", "expected"),
    [
        pytest.param("Any", 0, [("b", "reclaim")], id="any"),
        pytest.param("LowerPriority", 0, [], id="equal priority is not lower"),
        pytest.param("LowerPriority", 1, [("b", "reclaim")], id="lower priority"),
        pytest.param("Never", 9, [], id="never"),
    ],
)
def test_queue_takes_its_nominal_quota_back(policy: str, priority: int, expected: list[tuple[str, str]]) -> None:
    teams = [team("a", 4, reclaimWithinCohort=policy), team("b", 4)]
    assert preempted(*teams, held("b", 6, queue="b"), waits("x", 4, queue="a", priority=priority)) == expected


def test_queue_above_its_nominal_quota_reclaims_nothing() -> None:
    teams = [team("a", 4, reclaimWithinCohort="Any"), team("b", 4)]
    assert preempted(*teams, held("b", 6, queue="b"), waits("x", 5, queue="a")) == []


def test_queue_within_its_nominal_quota_is_no_target() -> None:
    teams = [team("a", 4, reclaimWithinCohort="Any"), team("b", 4), team("c", 0)]
    parts = [held("b", 4, queue="b"), held("c", 4, queue="c"), waits("x", 4, queue="a")]
    assert preempted(*teams, *parts) == [("c", "reclaim")]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param("LowerPriority", [("low", "within_tenant")], id="lower priority"),
        pytest.param("Never", [], id="never"),
    ],
)
def test_priority_preempts_within_a_queue(policy: str, expected: list[tuple[str, str]]) -> None:
    running = [held("low", 2, queue="a"), held("high", 2, queue="a", priority=9)]
    assert preempted(team("a", 4, withinClusterQueue=policy), *running, waits("x", 2, queue="a", priority=5)) == expected


def test_equal_priority_goes_only_where_it_is_newer() -> None:
    older = workload("x", pods(2, gpu=1), queue="a", created="2026-02-28T00:00:00Z")
    running = held("newer", 4, queue="a")
    assert preempted(team("a", 4, withinClusterQueue="LowerOrNewerEqualPriority"), running, older) == [("newer", "within_tenant")]
    assert preempted(team("a", 4, withinClusterQueue="LowerPriority"), running, older) == []


def test_lowest_priority_goes_first_then_the_newest() -> None:
    running = [held("old", 2, queue="b", hour=8), held("new", 2, queue="b", hour=10), held("high", 4, queue="b", priority=9)]
    teams = [team("a", 8, reclaimWithinCohort="Any"), team("b", 0)]
    assert preempted(*teams, *running, waits("x", 2, queue="a")) == [("new", "reclaim")]
    assert preempted(*teams, *running, waits("x", 4, queue="a")) == [("new", "reclaim"), ("old", "reclaim")]


def test_borrowing_workload_takes_from_low_priorities_only() -> None:
    borrowing = {"policy": "LowerPriority", "maxPriorityThreshold": 0}
    teams = [team("a", 2, reclaimWithinCohort="LowerPriority", borrowWithinCohort=borrowing), team("b", 2), team("c", 2)]
    low = [held("b", 4, queue="b", priority=0), waits("x", 4, queue="a", priority=5)]
    high = [held("b", 4, queue="b", priority=1), waits("x", 4, queue="a", priority=5)]
    assert preempted(*teams, *low) == [("b", "borrow")]
    assert preempted(*teams, *high) == []


def test_fair_sharing_takes_from_the_queue_that_borrows_most() -> None:
    fair = {"apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration", "fairSharing": {}}
    teams = [team("a", 0, reclaimWithinCohort="Any"), team("b", 0), team("shared", 8)]
    running = [held("b1", 3, queue="b", hour=8), held("b2", 3, queue="b", hour=9), held("a1", 2, queue="a")]
    assert preempted(fair, *teams, *running, waits("x", 1, queue="a")) == [("b2", "fair_share")]
