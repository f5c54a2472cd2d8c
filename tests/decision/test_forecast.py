"""When waiting jobs would start, if running jobs used their whole limits."""

from __future__ import annotations

import pytest

from domain.reasons import ReasonCode
from scheduler.decision.explain import Estimate, explain
from scheduler.decision.forecast import forecast
from scheduler.decision.plan import Forecast
from tests.decision.world import HOUR_MS, World


def test_job_blocked_by_devices_starts_when_the_running_one_reaches_its_limit(world: World) -> None:
    world.node("a")
    world.runs({"a": [0, 1]}, started_ms=-1000, limit_ms=HOUR_MS)
    job = world.job(gpus=8)
    assert world.forecast(job) == Forecast(start_ms=HOUR_MS - 1000)


def test_job_blocked_by_quota_starts_when_its_tenants_job_ends(world: World) -> None:
    world.node("a")
    world.tenant("x", 2)
    world.runs({"a": [0, 1]}, tenant="x", limit_ms=2 * HOUR_MS)
    world.runs({"a": [2]}, tenant="y", limit_ms=HOUR_MS)
    job = world.job(gpus=2, tenant="x")
    assert world.forecast(job) == Forecast(start_ms=2 * HOUR_MS)


def test_jobs_of_one_class_start_one_after_another(world: World) -> None:
    world.node("a", gpus=1)
    jobs = [world.job(limit_ms=HOUR_MS) for _ in range(3)]
    assert [world.forecast(job) for job in jobs[1:]] == [Forecast(start_ms=HOUR_MS), Forecast(start_ms=2 * HOUR_MS)]


def test_small_job_is_forecast_beside_the_blocked_large_one(world: World) -> None:
    world.node("a")
    world.runs({"a": [0, 1, 2, 3]}, limit_ms=HOUR_MS)
    world.job(gpus=8, priority=1, limit_ms=HOUR_MS)
    job = world.job(gpus=1, limit_ms=2 * HOUR_MS)
    assert world.forecast(job) == Forecast(start_ms=2 * HOUR_MS)


def test_job_beyond_the_depth_gets_a_time_before_which_it_cannot_start(world: World) -> None:
    world.node("a", gpus=1)
    world.runs({"a": [0]}, limit_ms=HOUR_MS)
    world.job(limit_ms=1)
    job = world.job(limit_ms=2)
    assert world.forecast(job, depth=1) == Forecast(not_before_ms=HOUR_MS)


def test_job_that_can_never_start_has_no_forecast(world: World) -> None:
    world.node("a", gpus=1)
    job = world.job(gpus=2)
    world.expect_waiting(job, ReasonCode.EXCEEDS_MAXIMUM)
    assert world.forecast(job) is None


def test_job_that_overran_its_limit_is_expected_within_twice_its_overrun(world: World) -> None:
    world.node("a", gpus=1)
    world.runs({"a": [0]}, started_ms=-2 * HOUR_MS, limit_ms=HOUR_MS)
    job = world.job()
    assert world.forecast(job) == Forecast(start_ms=(1 << 22) - HOUR_MS)


def test_estimate_stands_last_in_line_and_keeps_nothing(world: World) -> None:
    world.node("a", gpus=1)
    job = world.job(limit_ms=HOUR_MS)
    key = world.jobs[0][0]
    estimate = explain(world.snapshot(), key)
    assert not estimate.starts_now
    assert estimate.forecast == Forecast(start_ms=HOUR_MS)
    world.expect(job, on="a")


def test_estimate_of_a_job_that_fits_starts_now(world: World) -> None:
    world.node("a", gpus=1)
    world.job()
    key, _ = world.jobs.pop()
    world.check()
    assert explain(world.snapshot(), key) == Estimate(starts_now=True)


def test_forecast_of_a_class_is_that_of_its_first_job_that_waits(world: World) -> None:
    world.node("a", gpus=2)
    started, *waiting = [world.job(gpus=2) for _ in range(3)]
    plan = world.check()
    assert [start.job for start in plan.starts] == [started]
    key = world.jobs[0][0]
    assert forecast(world.snapshot(), 100, plan=plan) == {key: Forecast(start_ms=HOUR_MS)}, waiting


def test_as_many_classes_as_the_depth_get_start_times(world: World) -> None:
    world.node("a", gpus=1)
    world.runs({"a": [0]}, limit_ms=HOUR_MS)
    jobs = [world.job(limit_ms=HOUR_MS + at) for at in range(3)]
    starts = [Forecast(start_ms=HOUR_MS), Forecast(start_ms=2 * HOUR_MS), Forecast(not_before_ms=HOUR_MS)]
    assert [world.forecast(job, depth=2) for job in jobs] == starts


def test_jobs_beyond_the_maximum_start_no_sooner_than_the_last_of_their_class(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.decision.forecast.JOBS_MAXIMUM", 3)
    world.node("a", gpus=1)
    world.runs({"a": [0]}, limit_ms=HOUR_MS)
    first = [world.job(limit_ms=HOUR_MS) for _ in range(2)]
    second = [world.job(limit_ms=HOUR_MS + 1) for _ in range(2)]
    third = world.job(limit_ms=HOUR_MS + 2)
    assert [world.forecast(job) for job in [*first, *second, third]] == [
        Forecast(start_ms=HOUR_MS),
        Forecast(start_ms=2 * HOUR_MS),
        Forecast(start_ms=3 * HOUR_MS),
        Forecast(not_before_ms=3 * HOUR_MS),
        Forecast(not_before_ms=HOUR_MS),
    ]


def test_job_that_fits_in_no_known_future_starts_no_sooner_than_the_first_end(world: World) -> None:
    world.node("a", gpus=1)
    world.node("b", gpus=1, is_schedulable=False)
    world.runs({"a": [0]}, limit_ms=HOUR_MS)
    job = world.job(gpus=1, replicas=2)
    assert world.forecast(job) == Forecast(not_before_ms=HOUR_MS)
