"""A job that was stopped for another does not fight back: it takes what the hierarchy gives it and own jobs of lower priority, no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from quotas.tree import Preemption, PreemptWithin, Reclaim
from tests.decision.world import World

BY_AGE = Preemption(PreemptWithin.LOWER_OR_NEWER_EQUAL, Reclaim.ANY)
BY_PRIORITY = Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY)


@pytest.fixture
def full(world: World) -> World:
    """Two GPUs in a cohort; x owns one and y none."""
    world.node("a", gpus=2)
    world.cohort("all", gpus=1)
    world.tenant("x", 1, parent="all", preemption=BY_AGE)
    world.tenant("y", 0, parent="all", preemption=BY_AGE)
    return world


def stopped(world: World, job: str) -> str:
    """Let an attempt of a queued job have been stopped for another."""
    world.jobs = [(key, replace(item, was_preempted=True) if item.job == job else item) for key, item in world.jobs]
    return job


def test_fresh_job_takes_a_newer_one_of_its_tenant_and_a_stopped_one_does_not(full: World) -> None:
    newer = full.runs({"a": [0, 1]}, tenant="x", submitted_ms=10)
    job = full.job(gpus=2, tenant="x", submitted_ms=5)
    full.expect_preempted(job, newer)
    full.expect_waiting(stopped(full, job), ReasonCode.QUOTA_EXCEEDED)


def test_stopped_job_takes_an_own_one_of_lower_priority(full: World) -> None:
    lower = full.runs({"a": [0, 1]}, tenant="x", priority=-1)
    full.expect_preempted(stopped(full, full.job(gpus=2, tenant="x")), lower)


def test_job_that_is_as_old_as_another_does_not_take_it(full: World) -> None:
    full.runs({"a": [0, 1]}, tenant="x", submitted_ms=5)
    full.expect_waiting(full.job(gpus=2, tenant="x", submitted_ms=5), ReasonCode.QUOTA_EXCEEDED)


def test_age_does_not_count_where_the_policy_speaks_of_priority_only(full: World) -> None:
    full.tenant("x", 1, parent="all", preemption=BY_PRIORITY)
    full.runs({"a": [0, 1]}, tenant="x", submitted_ms=10)
    full.expect_waiting(full.job(gpus=2, tenant="x", submitted_ms=5), ReasonCode.QUOTA_EXCEEDED)


def test_stopped_job_takes_back_what_its_tenant_owns(full: World) -> None:
    lent = full.runs({"a": [0, 1]}, tenant="y")
    full.expect_preempted(stopped(full, full.job(tenant="x")), lent)


def test_stopped_job_takes_nothing_by_a_fair_share(full: World) -> None:
    full.cohort("all", gpus=2)
    full.tenant("x", 0, parent="all", preemption=BY_AGE)
    first, second = (full.runs({"a": [at]}, tenant="y", started_ms=-at) for at in range(2))
    job = full.job(tenant="x")
    full.expect_preempted(job, first)
    full.expect_waiting(stopped(full, job), ReasonCode.QUOTA_EXCEEDED)
    assert second


def test_stopped_job_passes_over_its_cohort_to_take_back_from_another(world: World) -> None:
    world.node("a", gpus=8)
    world.cohort("root")
    world.cohort("left", parent="root", gpus=4)
    world.cohort("right", parent="root")
    world.tenant("y", 0, parent="left")
    world.tenant("x", 0, parent="left", preemption=BY_AGE)
    world.tenant("z", 0, parent="right")
    world.runs({"a": [0]}, tenant="y", started_ms=-1)
    lent = world.runs({"a": [1, 2, 3]}, tenant="z", started_ms=-9)
    # x stays within what left owns, so it takes back from z; against y it has nothing but a fair share.
    world.expect_preempted(stopped(world, world.job(gpus=2, tenant="x")), lent)
