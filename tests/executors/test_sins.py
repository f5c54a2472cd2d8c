"""The conformance tests catch every sin, and the scheduler copes with those that happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from executors.base import Executor, RetryError
from executors.fake import Script
from scheduler.service import SchedulerSettings
from store import tables
from store.engine import Store
from tests.executors import sins
from tests.executors import test_conformance as conformance
from tests.executors.worlds import RowsAndFake
from tests.support.fleet import T0_MS, Fleet

T = TypeVar("T", bound=Executor)
IMPATIENT = SchedulerSettings(call_patience_ms=1)


@pytest.mark.parametrize(
    ("sinner", "promise"),
    [
        pytest.param(sins.KeepsObjects, conformance.test_start_returns_a_handle_that_survives_json, id="KeepsObjects"),
        pytest.param(sins.StartsTwice, conformance.test_second_start_finds_the_first, id="StartsTwice"),
        pytest.param(sins.ForgetsHandle, conformance.test_lease_goes_through_its_phases, id="ForgetsHandle"),
        pytest.param(sins.NeverStops, conformance.test_stop_makes_an_end_within_the_grace_and_says_gone_only_then, id="NeverStops"),
        pytest.param(sins.SaysGoneTooEarly, conformance.test_stop_makes_an_end_within_the_grace_and_says_gone_only_then, id="SaysGone"),
        pytest.param(sins.StartsWhatWasStopped, conformance.test_start_that_arrives_after_the_stop_starts_nothing, id="StartsStopped"),
        pytest.param(sins.AnswersForTheLast, conformance.test_status_answers_for_many_at_once_and_for_nothing_else, id="AnswersForOne"),
    ],
)
async def test_conformance_catches(store: Store, sinner: Callable[[Executor], Executor], promise: Callable[[Any], Awaitable[None]]) -> None:
    world = RowsAndFake(store)
    world.executor = sinner(world.fake)

    with pytest.raises((AssertionError, TypeError, KeyError)):
        await promise(world)


async def begin(store: Store, sin: Callable[[Executor], T], **options: Any) -> tuple[Fleet, T]:
    """Return a world whose executor is a sinner."""
    made: list[T] = []

    def wrap(good: Executor) -> T:
        made.append(sin(good))
        return made[0]

    return await Fleet(store, executor=wrap, **options).begin(), made[0]


async def test_slow_start_holds_up_nobody_and_happens_once(store: Store) -> None:
    world, slow = await begin(store, sins.SlowToStart, settings=IMPATIENT)
    held, other = await world.submit(), await world.submit()
    await world.settle()
    (lease,) = await world.leases(held)
    assert (await world.state(held), lease["handle"], await world.state(other)) == ("starting", None, "running")

    slow.may_answer.set()
    await world.until_ended(held, other)

    assert [await world.outcomes(job) for job in (held, other)] == [["completed"], ["completed"]]


async def test_start_that_never_answers_is_given_up_after_its_deadline_and_asked_again(store: Store) -> None:
    world, slow = await begin(store, sins.SlowToStart, settings=SchedulerSettings(call_ms_maximum=1))
    job = await world.submit()
    await world.settle()
    assert (await world.leases(job))[0]["handle"] is None

    slow.may_answer.set()
    await world.until_ended(job)

    assert await world.outcomes(job) == ["completed"]


async def test_lease_that_never_stops_keeps_its_slices_is_told_again_and_holds_up_nobody(store: Store) -> None:
    world, never = await begin(store, sins.NeverStops)
    job = await world.submit(gpus=4, script=Script(duration_ms=10**9))
    await world.settle()
    await world.cancel(job)
    for _ in range(4):
        await world.pass_time(6_000)
        await world.settle()
    other = await world.submit(gpus=4)
    await world.settle()

    (lease,) = await world.leases(job)
    assert (await world.state(job), lease["target"], lease["released_at_ms"]) == ("running", "stop", None)
    assert (await world.state(other), len(await world.rows(tables.DeviceClaim))) == ("running", 8)
    assert never.asked == [lease["id"]] * 2


async def test_lease_that_the_executor_forgot_is_started_again(store: Store) -> None:
    world, _ = await begin(store, sins.ForgetsHandle)
    job = await world.submit()
    await world.settle()
    assert await world.state(job) == "starting"

    await world.until_ended(job)

    assert (await world.state(job), await world.outcomes(job)) == ("succeeded", ["completed"])


async def test_lease_that_the_executor_forgot_can_be_cancelled(store: Store) -> None:
    world, _ = await begin(store, lambda good: sins.ForgetsHandle(good, times=10**6))
    job = await world.submit()
    await world.settle()
    await world.cancel(job)

    await world.until_ended(job)

    assert (await world.state(job), await world.outcomes(job), world.fake.live) == ("cancelled", ["cancelled"], ())


async def test_start_that_failed_after_its_effect_is_found_when_it_is_tried_again(store: Store) -> None:
    world, _ = await begin(store, sins.FailsBetweenStartAndConnect)
    job = await world.submit()
    await world.settle()
    (lease,) = await world.leases(job)
    assert (lease["handle"], world.orders.started) == (None, [lease["id"]])

    await world.pass_time(4_999)
    await world.settle()
    assert world.orders.started == [lease["id"]]
    await world.until_ended(job)

    assert (await world.outcomes(job), world.orders.started) == (["completed"], [lease["id"]] * 2)


async def test_start_that_can_never_work_is_stopped_and_the_next_attempt_waits_until_nothing_of_it_is_left(store: Store) -> None:
    world, _ = await begin(store, lambda good: sins.FailsBetweenStartAndConnect(good, sins.NEVER))
    job = await world.submit(script=Script(duration_ms=60_000, stop_ms=3_000, idle_ms=1_000))
    await world.settle()
    assert (len(await world.leases(job)), len(world.fake.live)) == (1, 1)

    await world.until_ended(job)

    first, second = await world.leases(job)
    assert [lease["end_cause"] for lease in (first, second)] == ["never_started", "completed"]
    assert first["ended_at_ms"] - T0_MS == 3_000
    assert second["granted_at_ms"] >= first["ended_at_ms"]


async def test_start_that_fails_without_a_word_is_tried_again(store: Store) -> None:
    errors = (RuntimeError("a bug"), RetryError("busy", delay_ms=1), ConnectionError("refused"))
    world, _ = await begin(store, lambda good: sins.FailsBetweenStartAndConnect(good, *errors))
    job = await world.submit()

    await world.until_ended(job)

    assert (await world.outcomes(job), len(world.orders.started)) == (["completed"], 4)
