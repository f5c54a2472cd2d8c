"""What a simulation adds up to, checked against sums done by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from scheduler.sim import metrics
from tests.sim.scenarios import WORLD, simulated

TWO_TENANTS = WORLD + "  - {name: b, weight: 2, quota: {h200: {nominal: 8}}}\n"


def test_makespan_is_the_last_end() -> None:
    assert simulated("now: 5", "jobs: [{id: x, tenant: a, run: 10}]")["metrics"]["makespan_seconds"] == 10.0


def test_waits_and_slowdowns_by_hand() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 8, count: 3, run: 10}]")["metrics"]
    assert found["wait_seconds"] == {"mean": 10.0, "p50": 10.0, "p95": 20.0, "p99": 20.0}
    assert found["slowdown"] == {"mean": 2.0, "p50": 2.0, "p95": 3.0, "p99": 3.0}


def test_allocation_is_held_time_over_owned_time() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 4, run: 10}, {id: y, tenant: a, gpus: 8, at: 5, run: 5}]")
    # 4 of 8 for 10 s, then 8 of 8 for 5 s; when the last job arrived, it found half of the GPUs held.
    assert found["metrics"]["gpu_allocation_ratio"] == {"mean": 0.666667, "end_of_arrivals": 0.5}


def test_gpus_too_few_for_those_who_wait_are_fragmented() -> None:
    parts = ("policy: {backfill_depth: 0}", "running: [{id: r, tenant: a, gpus: 5, started: 0, run: 10}]")
    found = simulated(*parts, "jobs: [{id: x, tenant: b, gpus: 4, run: 5}]", world=TWO_TENANTS)
    assert found["metrics"]["fragmentation_milli_gpu"] == 3000


def test_fairness_counts_gpu_time_by_weight() -> None:
    jobs = "jobs: [{id: x, tenant: a, gpus: 2, run: 10}, {id: y, tenant: b, gpus: 2, run: 10}]"
    # Shares 20/1 and 20/2: (20 + 10)^2 / (2 * (400 + 100)).
    assert simulated(jobs, world=TWO_TENANTS)["metrics"]["jain_index"] == 0.9


def test_tenant_that_got_nothing_makes_it_unfair() -> None:
    jobs = "jobs: [{id: x, tenant: a, run: 10}, {id: y, tenant: b, gpus: 9}]"
    assert simulated(jobs, world=TWO_TENANTS)["metrics"]["jain_index"] == 0.5


def test_decisions_are_counted() -> None:
    found = simulated("jobs: [{id: x, tenant: a, gpus: 8, count: 3, run: 10}]")["metrics"]
    assert (found["decisions"], found["preemptions"]) == (3, 0)


@pytest.mark.parametrize(
    ("count", "p50", "p95", "p99"),
    [
        pytest.param(1, 1, 1, 1, id="of one value"),
        pytest.param(2, 1, 2, 2, id="of two values the median is the first"),
        pytest.param(100, 50, 95, 99, id="of a hundred values"),
    ],
)
def test_percentiles_are_nearest_rank(count: int, p50: int, p95: int, p99: int) -> None:
    found = metrics.distribution([Fraction(value) for value in range(count, 0, -1)])
    assert (found["p50"], found["p95"], found["p99"]) == (p50, p95, p99)
