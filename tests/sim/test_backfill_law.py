"""Backfill never delays anybody: whatever comes after a job in the queue, it starts no later than it would without it.

Stated on whole simulations, without a look at how forward start times are found. Jobs use their whole limits, because a job that ends early
gives its place to whoever is first, and then everybody's turn changes.
"""

from __future__ import annotations

import itertools
import random

import pytest

from scheduler.sim import reading
from scheduler.sim.simulate import simulate

WORLDS_PER_BLOCK = 25

Job = tuple[int, int, int]  # GPUs, replicas, seconds


def starts(jobs: list[Job], nodes: list[int]) -> list[float]:
    """Return when each job starts; jobs come first in, first served, all at the beginning."""
    lines = ["scenario: 1", "policy: {fair_sharing: false, backfill_depth: 100}", "nodes:"]
    lines += [f"  - {{name: n{at}, gpu_model: h200, gpus: {gpus}}}" for at, gpus in enumerate(nodes)]
    lines += ["tenants: [{name: a, quota: {h200: {nominal: null}}}]", "jobs:"]
    lines += [f"  - {{id: j{at}, tenant: a, gpus: {job[0]}, replicas: {job[1]}, limit: {job[2]}}}" for at, job in enumerate(jobs)]
    found = simulate(reading.read("\n".join(lines)), stopwatch=lambda: 0, rss_peak_bytes=lambda: 0)
    return [found["jobs"][f"j{at}"]["started"] for at in range(len(jobs))]


@pytest.mark.parametrize("first_seed", range(0, 4 * WORLDS_PER_BLOCK, WORLDS_PER_BLOCK))
def test_no_job_waits_for_one_that_comes_after_it(first_seed: int) -> None:
    passed = 0
    for seed in range(first_seed, first_seed + WORLDS_PER_BLOCK):
        chance = random.Random(seed)
        nodes = [chance.choice((2, 4, 8)) for _ in range(chance.randint(1, 3))]
        drawn = [(chance.choice((1, 2, 4, 8)), chance.choice((1, 1, 2)), chance.randint(1, 9)) for _ in range(chance.randint(3, 8))]
        jobs = [job for job in drawn if sum(gpus // job[0] for gpus in nodes) >= job[1]] or [(1, 1, 1)]
        together = starts(jobs, nodes)
        alone = [starts(jobs[: at + 1], nodes)[at] for at in range(len(jobs))]
        assert all(now <= before for now, before in zip(together, alone, strict=True)), f"seed {seed}: {together} against {alone}"
        passed += any(later < earlier for earlier, later in itertools.pairwise(together))
    assert passed, "no job passed another in any of these worlds, so they prove nothing"
