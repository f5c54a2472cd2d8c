"""Places held for those who wait for others to leave, from the notice to the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from quotas.tree import Preemption, PreemptWithin
from tests.decision.world import HOUR_MS, World

LOWER = Preemption(PreemptWithin.LOWER_PRIORITY)


@pytest.fixture
def full(world: World) -> World:
    """One node of eight, held by two jobs of four of the same tenant, ten seconds of grace and sixty of patience."""
    world.policy = replace(world.policy, preemption_grace_ms=10_000, nomination_timeout_ms=60_000)
    world.node("a")
    world.tenant("x", 8, preemption=LOWER)
    for devices in (range(4), range(4, 8)):
        world.runs({"a": devices}, priority=-1)
    return world


def test_beneficiary_waits_with_its_victims_named(full: World) -> None:
    job = full.job(gpus=3)
    data: dict[str, ReasonValue] = {"victims": ["job-1"], "releases_by_ms": 10_000, "held_until_ms": 70_000}
    assert full.reason(job) == Reason(ReasonCode.WAITING_FOR_PREEMPTED, data, Unblock.ANY_JOB_ENDS)


def test_next_job_takes_what_the_first_leaves_over_without_victims_of_its_own(full: World) -> None:
    first, second = full.job(gpus=3), full.job(gpus=1)
    plan = full.check()
    assert [(item.job, item.beneficiary) for item in plan.preemptions] == [("job-1", first)]
    assert [item.job for item in plan.nominations] == [first, second]


def test_each_job_has_victims_of_its_own(full: World) -> None:
    first, second = full.job(gpus=3), full.job(gpus=4)
    assert {item.job: item.beneficiary for item in full.check().preemptions} == {"job-1": first, "job-2": second}


def test_nobody_is_told_to_leave_twice(full: World) -> None:
    full.job(gpus=3)
    full.follow(full.check())
    plan = full.check()
    assert plan.preemptions == ()
    assert plan.nominations == full.nominations


def test_beneficiary_starts_where_it_was_nominated_once_the_victims_are_gone(full: World) -> None:
    job = full.job(gpus=3)
    full.follow(full.check())
    full.release()
    (start,) = full.check().starts
    assert (start.job, start.slices) == (job, full.nominations[0].slices)
    assert full.check().nominations == ()


def test_nominated_place_is_not_given_to_somebody_else(full: World) -> None:
    nominated = full.job(gpus=3)
    full.follow(full.check())
    full.release()
    full.job(gpus=4, tenant="x", priority=9, submitted_ms=-99)
    assert [start.job for start in full.check().starts] == [nominated]


def test_free_part_of_a_nominated_place_is_held_while_the_victims_leave(world: World) -> None:
    world.node("a")
    world.tenant("x", 16, preemption=LOWER)
    world.runs({"a": range(4)}, priority=-1)
    world.job(gpus=8)
    world.follow(world.check())
    world.running[0] = replace(world.running[0], releases_ms=5_000)
    world.expect_waiting(world.job(gpus=1, priority=-1), ReasonCode.NO_CAPACITY)


def test_leaving_job_still_counts_against_quota(full: World) -> None:
    full.node("b")
    full.job(gpus=3)
    full.follow(full.check())
    full.running[0] = replace(full.running[0], releases_ms=5_000)
    late = full.job(gpus=1, priority=-2)
    assert late not in {start.job for start in full.check().starts}


def test_expired_nomination_holds_nothing(full: World) -> None:
    full.job(gpus=3)
    full.follow(full.check())
    full.release()
    full.now_ms = 70_000
    urgent = full.job(gpus=4, priority=9)
    assert [start.job for start in full.check().starts] == [urgent]


def test_nomination_of_a_cancelled_job_holds_nothing(full: World) -> None:
    full.job(gpus=3)
    full.follow(full.check())
    full.release()
    full.jobs = [item for item in full.jobs if item[0].priority < 0]
    assert full.check().nominations == ()


def test_nomination_is_lost_with_its_node(full: World) -> None:
    full.job(gpus=3)
    full.follow(full.check())
    full.nodes = [replace(node, is_schedulable=False) for node in full.nodes]
    assert full.check().nominations == ()


def test_rest_of_the_class_has_a_reason_of_its_own(full: World) -> None:
    for _ in range(3):
        full.job(gpus=4)
    plan = full.check()
    assert len(plan.nominations) == 2
    assert [item.reason.code for item in plan.reasons] == [ReasonCode.QUOTA_EXCEEDED]


def test_nominated_job_is_forecast_to_start_when_its_victims_are_gone(full: World) -> None:
    job = full.job(gpus=3)
    forecast = full.forecast(job)
    assert forecast is not None
    assert forecast.start_ms == 10_000


def test_nominated_job_counts_from_when_its_victims_are_gone(world: World) -> None:
    world.policy = replace(world.policy, preemption_grace_ms=10_000)
    world.node("a", gpus=5)
    world.tenant("x", 99, preemption=LOWER)
    world.runs({"a": range(4)}, priority=-1)
    world.job(gpus=4, priority=2)
    world.job(gpus=5, priority=1)
    reason = world.expect_waiting(world.job(limit_ms=2 * HOUR_MS), ReasonCode.WOULD_DELAY)
    assert reason.data["held_from_ms"] == HOUR_MS + 10_000


def test_victim_with_a_grace_of_its_own_is_gone_after_that(full: World) -> None:
    full.running = [replace(job, grace_ms=7_000) for job in full.running]
    full.job(gpus=4)
    assert [(item.releases_ms, item.expires_ms) for item in full.check().nominations] == [(7_000, 67_000)]
