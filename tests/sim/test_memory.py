"""Fair sharing over time: who borrowed much waits for who borrowed little, and caps on single users."""

from __future__ import annotations

from tests.sim.scenarios import simulated

SHARED = """
scenario: 1
nodes:
  - {name: n, gpu_model: h200, gpus: 8}
cohorts:
  - {name: all, quota: {h200: {nominal: 8}}}
tenants:
  - {name: a, parent: all, quota: {h200: {nominal: 0}}}
  - {name: b, parent: all, quota: {h200: {nominal: 0}}, user_cap: 4}
"""
# a holds everything for a minute; afterwards one job of each waits for the same place, the one of a since earlier.
JOBS = (
    "jobs: [{id: r, tenant: a, gpus: 8, run: 60}, {id: x, tenant: a, at: 10, gpus: 8, run: 5}, {id: y, tenant: b, at: 20, gpus: 8, run: 5}]"
)


def order(half_life: int) -> list[str]:
    found = simulated(f"policy: {{fair_share_half_life: {half_life}}}", JOBS, world=SHARED)["jobs"]
    return sorted(found, key=lambda job: float(found[job]["started"]))


def test_with_a_memory_the_tenant_that_borrowed_before_waits() -> None:
    assert order(3600) == ["r", "y", "x"]


def test_without_a_memory_the_older_job_goes_first() -> None:
    assert order(0) == ["r", "x", "y"]


def test_old_deeds_are_forgotten() -> None:
    late = JOBS.replace("at: 10", "at: 100000").replace("at: 20", "at: 100000")
    found = simulated("policy: {fair_share_half_life: 60}", late, world=SHARED)["jobs"]
    assert (found["x"]["started"], found["y"]["started"]) == (100000.0, 100005.0)


def test_running_jobs_are_remembered_since_they_started() -> None:
    running = "running: [{id: r, tenant: a, gpus: 8, started: -60, run: 120}]"
    jobs = "jobs: [{id: x, tenant: a, at: 10, gpus: 8, run: 5}, {id: y, tenant: b, at: 20, gpus: 8, run: 5}]"
    found = simulated("policy: {fair_share_half_life: 3600}", running, jobs, world=SHARED)["jobs"]
    assert (found["y"]["started"], found["x"]["started"]) == (60.0, 65.0)


def test_user_waits_for_an_own_job_at_the_cap() -> None:
    found = simulated(
        "jobs: [{id: x, tenant: b, user: ada, gpus: 3, count: 2, run: 10}, {id: y, tenant: b, user: bob, gpus: 4, run: 10}]", world=SHARED
    )
    assert [found["jobs"][name]["started"] for name in ("x-0", "x-1", "y")] == [0.0, 10.0, 0.0]
