"""Virtual time: what happens when, and what becomes of each job."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.sim import reading
from scheduler.sim.simulate import simulate
from tests.sim.scenarios import WORLD, simulated


def job(found: dict[str, Any], name: str) -> tuple[Any, ...]:
    """Return state, started, ended, attempts and code of one job."""
    entry = found["jobs"][name]
    return tuple(entry[key] for key in ("state", "started", "ended", "attempts", "code"))


def test_job_runs_from_its_arrival_for_its_time() -> None:
    found = simulated("jobs: [{id: x, tenant: a, at: 5, run: 10}]")
    assert job(found, "x") == ("succeeded", 5.0, 15.0, 1, None)
    assert found["jobs"]["x"]["submitted"] == 5.0


def test_second_job_starts_at_the_instant_when_the_first_ends() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 8, count: 2, run: 10}]")
    assert job(found, "x-1") == ("succeeded", 10.0, 20.0, 1, None)


def test_job_that_runs_over_its_limit_fails_there() -> None:
    found = simulated("jobs: [{id: x, tenant: a, run: 11, limit: 10}]")
    assert job(found, "x") == ("failed", 0.0, 10.0, 1, "time_limit")


def test_run_defaults_to_the_limit_and_the_limit_to_the_policys() -> None:
    found = simulated("policy: {default_limit: 7}", "jobs: [{id: x, tenant: a}]")
    assert job(found, "x") == ("succeeded", 0.0, 7.0, 1, None)


def test_running_job_ends_at_what_is_left_of_its_run() -> None:
    found = simulated("running: [{id: r, tenant: a, started: -60, run: 100, limit: 900}]")
    assert job(found, "r") == ("succeeded", -60.0, 40.0, 1, None)


def test_dependent_job_starts_after_all_have_succeeded() -> None:
    found = simulated("jobs: [{id: x, tenant: a, run: 5}, {id: y, tenant: a, run: 9}, {id: z, tenant: a, run: 1, depends_on: [x, y]}]")
    assert job(found, "z") == ("succeeded", 9.0, 10.0, 1, None)


def test_failed_dependency_cancels_all_that_hang_on_it() -> None:
    found = simulated(
        "jobs:",
        "- {id: x, tenant: a, run: 5, limit: 4}",
        "- {id: y, tenant: a, depends_on: [x]}",
        "- {id: z, tenant: a, depends_on: [y], at: 90}",
    )
    assert job(found, "y") == ("cancelled", None, 4.0, 0, "dependency_failed")
    assert job(found, "z") == ("cancelled", None, 4.0, 0, "dependency_failed")


def test_failed_node_evicts_its_job_which_starts_again_from_the_beginning() -> None:
    found = simulated("jobs: [{id: x, tenant: a, run: 10}]", "events: [{at: 4, fail: n}, {at: 6, recover: n}]")
    assert job(found, "x") == ("succeeded", 6.0, 16.0, 2, None)
    assert found["metrics"]["lost_gpu_seconds"] == 4.0


def test_checkpoints_keep_work_over_an_eviction() -> None:
    found = simulated(
        "jobs: [{id: x, tenant: a, run: 10, gpus: 2, checkpoint_every: 3}]", "events: [{at: 4, fail: n}, {at: 6, recover: n}]"
    )
    assert job(found, "x") == ("succeeded", 6.0, 13.0, 2, None)
    assert found["metrics"]["lost_gpu_seconds"] == 2.0


def test_drained_node_keeps_its_job_and_takes_no_other() -> None:
    found = simulated(
        "jobs: [{id: x, tenant: a, run: 10}, {id: y, tenant: a, at: 5, run: 1}]", "events: [{at: 4, drain: n}, {at: 20, undrain: n}]"
    )
    assert job(found, "x") == ("succeeded", 0.0, 10.0, 1, None)
    assert job(found, "y") == ("succeeded", 20.0, 21.0, 1, None)


def test_failed_device_evicts_its_job_to_another() -> None:
    found = simulated("jobs: [{id: x, tenant: a, run: 10}]", 'events: [{at: 4, device_fail: "n/0"}]')
    assert job(found, "x") == ("succeeded", 4.0, 14.0, 2, None)
    assert [piece["device"] for piece in found["jobs"]["x"]["slices"]] == [1]


def test_larger_quota_lets_the_waiting_job_start() -> None:
    found = simulated("jobs: [{id: x, tenant: b, run: 1}]", "events: [{at: 3, quota: {tenant: b, h200: {nominal: 1}}}]", world=OTHER)
    assert job(found, "x") == ("succeeded", 3.0, 4.0, 1, None)


OTHER = WORLD + "  - {name: b, quota: {h200: {nominal: 0}}}\n"


def test_ends_come_before_arrivals_at_one_instant() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 8, run: 5}, {id: y, tenant: a, gpus: 8, at: 5, run: 5}]")
    assert job(found, "y") == ("succeeded", 5.0, 10.0, 1, None)


def test_until_stops_the_clock() -> None:
    found = simulated("until: 7", "jobs: [{id: x, tenant: a, run: 10}, {id: y, tenant: a, gpus: 8, run: 1}, {id: z, tenant: a, at: 8}]")
    assert job(found, "x") == ("running", 0.0, None, 1, None)
    assert job(found, "y") == ("queued", None, None, 0, "quota_exceeded")
    assert job(found, "z") == ("queued", None, None, 0, None)


def test_simulation_ends_with_its_last_job_although_events_follow() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 8, run: 10}]", "events: [{at: 1000, drain: n}]")
    assert found["metrics"]["gpu_allocation_ratio"]["mean"] == 1.0


def test_job_that_can_never_start_stays_queued_with_its_code() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 9}]")
    assert job(found, "x") == ("queued", None, None, 0, "exceeds_maximum")


def test_job_of_no_length_ends_at_the_instant_it_starts() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 8, run: 0, count: 3}]")
    assert job(found, "x-2") == ("succeeded", 0.0, 0.0, 1, None)


def test_every_start_and_end_is_told_in_order() -> None:
    told: list[dict[str, Any]] = []
    scenario = reading.read(WORLD + "jobs: [{id: x, tenant: a, run: 10}]\nevents: [{at: 4, fail: n}, {at: 6, recover: n}]")
    simulate(scenario, stopwatch=lambda: 0, rss_peak_bytes=lambda: 0, emit=told.append)
    assert [(entry["at"], entry["event"], entry["attempt"]) for entry in told] == [
        (0.0, "start", 1),
        (4.0, "preemption", 1),
        (6.0, "start", 2),
        (16.0, "end", 2),
    ]


def test_same_scenario_gives_the_same_result() -> None:
    parts = ("jobs: [{id: x, tenant: a, gpus: 3, count: 20, every: 1, run: 7}, {id: y, tenant: a, gpus: 8, at: 2, run: 3}]",)
    assert simulated(*parts) == simulated(*parts)


@pytest.mark.parametrize("name", ["wait_seconds", "slowdown"])
def test_metrics_of_no_job_are_zero(name: str) -> None:
    assert simulated()["metrics"][name] == {"mean": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0}
