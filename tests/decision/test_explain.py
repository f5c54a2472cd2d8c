"""What would happen to one more job, submitted now and last in line."""

from __future__ import annotations

import pytest

from domain.reasons import ReasonCode
from quotas.tree import Preemption, PreemptWithin
from scheduler.decision.explain import Estimate, explain
from scheduler.decision.plan import Forecast
from scheduler.decision.snapshot import ClassKey
from tests.decision.world import HOUR_MS, World


def estimate(world: World) -> Estimate:
    """Take the last job back and ask about it instead."""
    world.was_checked = True
    key, _ = world.jobs.pop()
    return explain(world.snapshot(), key)


def test_job_that_fits_starts_now(world: World) -> None:
    world.node("a")
    world.job(gpus=8)
    assert estimate(world) == Estimate(starts_now=True)


def test_job_that_does_not_fit_has_reason_and_forecast(world: World) -> None:
    world.node("a")
    world.runs({"a": range(8)})
    world.job(gpus=2)
    found = estimate(world)
    assert found.reason is not None
    assert (found.starts_now, found.reason.code, found.forecast) == (False, ReasonCode.NO_CAPACITY, Forecast(start_ms=HOUR_MS))


@pytest.mark.parametrize("same_class", [True, False])
def test_others_that_were_submitted_at_the_same_time_come_first(world: World, same_class: bool) -> None:
    world.node("a", gpus=1)
    world.job(limit_ms=HOUR_MS)
    world.job(limit_ms=HOUR_MS if same_class else HOUR_MS + 1)
    assert not estimate(world).starts_now


def test_impossible_job_has_no_forecast(world: World) -> None:
    world.node("a")
    world.job(gpus=9)
    found = estimate(world)
    assert found.reason is not None
    assert (found.reason.code, found.forecast) == (ReasonCode.EXCEEDS_MAXIMUM, None)


def test_job_that_others_would_leave_for_is_told_so(world: World) -> None:
    world.node("a")
    world.tenant("x", 8, preemption=Preemption(PreemptWithin.LOWER_PRIORITY))
    low = world.runs({"a": range(8)}, priority=-1)
    world.job(gpus=2)
    found = estimate(world)
    assert found.reason is not None
    assert (found.reason.code, found.reason.data["victims"]) == (ReasonCode.WAITING_FOR_PREEMPTED, [low])


def test_unknown_tenant_is_invalid(world: World) -> None:
    world.node("a")
    world.job()
    key: ClassKey = world.jobs[0][0]
    world.quota_nodes.clear()
    world.jobs.clear()
    world.was_checked = True
    found = explain(world.snapshot(), key)
    assert found.reason is not None
    assert found.reason.data == {"field": "tenant"}


def test_grace_of_its_class_counts_against_a_blocked_job(world: World) -> None:
    world.node("a")
    world.runs({"a": [0, 1, 2, 3]})
    world.job(gpus=8, priority=1)
    world.job(gpus=4, limit_ms=HOUR_MS - 10)
    assert estimate(world).starts_now
    world.job(gpus=4, limit_ms=HOUR_MS - 10)
    key, _ = world.jobs.pop()
    assert not explain(world.snapshot(), key, grace_ms=11).starts_now
