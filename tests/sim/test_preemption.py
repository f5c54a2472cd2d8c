"""Preemption in virtual time: notice, grace, the next attempt, and what it costs. Times are worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.sim import reading
from scheduler.sim.simulate import simulate
from tests.sim.scenarios import simulated

SHARED = """
scenario: 1
nodes:
  - {name: n, site: hanoi, gpu_model: h200, gpus: 8}
cohorts:
  - {name: all}
tenants:
  - {name: a, parent: all, quota: {h200: {nominal: 4}}, preemption: {within_tenant: lower_priority, reclaim_within_cohort: any}}
  - {name: b, parent: all, quota: {h200: {nominal: 4}}}
"""
LENT = "running: [{id: r, tenant: b, gpus: 8, started: 0, run: 100}]"


def grace(seconds: int, *more: str) -> str:
    return "policy: {fair_share_half_life: 0, " + ", ".join([f"preemption_grace: {seconds}", *more]) + "}"


def told(*parts: str) -> list[tuple[Any, ...]]:
    """Return (time, event, job, attempt) of everything that happened."""
    events: list[dict[str, Any]] = []
    scenario = reading.read(SHARED + "\n".join(parts))
    simulate(scenario, stopwatch=lambda: 0, rss_peak_bytes=lambda: 0, emit=events.append)
    return [(entry["at"], entry["event"], entry["job"], entry["attempt"]) for entry in events]


def test_without_grace_the_victim_is_gone_at_once() -> None:
    assert told(grace(0), LENT, "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}]") == [
        (10.0, "preemption", "r", 1),
        (10.0, "start", "x", 1),
        (30.0, "end", "x", 1),
        (30.0, "start", "r", 2),
        (130.0, "end", "r", 2),
    ]


def test_beneficiary_waits_for_the_grace() -> None:
    found = simulated(grace(5), LENT, "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}]", world=SHARED)
    assert found["jobs"]["x"]["started"] == 15.0
    assert found["jobs"]["r"]["preempted_by"] == ["x"]
    assert (found["metrics"]["preemptions"], found["metrics"]["lost_gpu_seconds"]) == (1, 8 * 15.0)


def test_victim_that_ends_within_its_grace_succeeds() -> None:
    running = "running: [{id: r, tenant: b, gpus: 8, started: 0, run: 12}]"
    found = simulated(grace(5), running, "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}]", world=SHARED)
    assert (found["jobs"]["r"]["state"], found["jobs"]["r"]["ended"], found["jobs"]["r"]["attempts"]) == ("succeeded", 12.0, 1)
    assert (found["jobs"]["x"]["started"], found["metrics"]["lost_gpu_seconds"]) == (12.0, 0.0)


def test_victim_loses_its_work_since_the_last_checkpoint_only() -> None:
    running = "running: [{id: r, tenant: b, gpus: 8, started: 0, run: 100, checkpoint_every: 4}]"
    found = simulated(grace(0), running, "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}]", world=SHARED)
    # 8 of 10 seconds were saved, so 92 are left when it starts again at 30.
    assert (found["jobs"]["r"]["ended"], found["metrics"]["lost_gpu_seconds"]) == (122.0, 16.0)


def test_victim_keeps_its_place_in_the_queue() -> None:
    jobs = "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}, {id: y, tenant: b, at: 5, gpus: 8, run: 1}]"
    found = simulated(grace(0), LENT, jobs, world=SHARED)
    assert (found["jobs"]["r"]["started"], found["jobs"]["y"]["started"]) == (30.0, 130.0)


def test_waiting_code_names_the_leaving() -> None:
    found = simulated("until: 12", grace(5), LENT, "jobs: [{id: x, tenant: a, at: 10, gpus: 4}]", world=SHARED)
    assert (found["jobs"]["x"]["state"], found["jobs"]["x"]["code"]) == ("queued", "waiting_for_preempted")


def test_what_is_free_beside_the_leaving_is_used_and_the_rest_kept_for_the_nominated() -> None:
    running = "running: [{id: r, tenant: b, gpus: 6, started: 0, run: 100}]"
    late = "{id: y, tenant: b, at: 11, gpus: 5, run: 1}, {id: z, tenant: b, at: 12, gpus: 2, run: 1}"
    jobs = f"jobs: [{{id: x, tenant: a, at: 10, gpus: 4, run: 20}}, {late}]"
    found = simulated(grace(5), running, jobs, world=SHARED)
    # y needs what x was promised, and after x the victim comes first, which kept its place in the queue; z fits beside all of them.
    assert [found["jobs"][name]["started"] for name in "xyz"] == [15.0, 135.0, 12.0]


def test_young_job_becomes_a_victim_when_it_has_run_long_enough() -> None:
    found = simulated(grace(0, "min_runtime: 40"), LENT, "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}]", world=SHARED)
    assert found["jobs"]["x"]["started"] == 40.0


def test_pool_waits_an_hour_for_its_next_victim() -> None:
    running = "running: [{id: r, tenant: b, gpus: 6, started: 0, run: 9000}, {id: s, tenant: b, gpus: 2, started: 0, run: 9000}]"
    jobs = "jobs: [{id: x, tenant: a, at: 10, gpus: 2, run: 9000}, {id: y, tenant: a, at: 20, gpus: 2, run: 10}]"
    found = simulated(grace(0, "preemptions_per_hour: 1"), running, jobs, world=SHARED)
    assert (found["jobs"]["x"]["started"], found["jobs"]["y"]["started"]) == (10.0, 3610.0)


def test_cutting_a_quota_stops_nobody_by_itself() -> None:
    running = "running: [{id: r, tenant: a, gpus: 4, started: 0, run: 100}]"
    found = simulated(grace(0), running, "events: [{at: 10, quota: {tenant: a, h200: {nominal: 0}}}]", world=SHARED)
    assert (found["jobs"]["r"]["ended"], found["metrics"]["preemptions"]) == (100.0, 0)


@pytest.mark.parametrize("fair_sharing", ["true", "false"])
def test_nominated_job_whose_node_fails_finds_another_place(fair_sharing: str) -> None:
    world = SHARED.replace("name: n,", "name: n, count: 2,")
    running = "running: [{id: r, tenant: b, gpus: 8, started: 0, run: 100}, {id: s, tenant: b, gpus: 8, started: 0, run: 50}]"
    jobs = "jobs: [{id: x, tenant: a, at: 10, gpus: 4, run: 20}]"
    events = "events: [{at: 12, fail: n-0}, {at: 12, fail: n-1}, {at: 14, recover: n-1}]"
    found = simulated(grace(5, f"fair_sharing: {fair_sharing}"), running, jobs, events, world=world)
    assert found["jobs"]["x"]["started"] == 14.0
