"""Clocks that step: stamps of a lease never go backwards, and nothing stands still until an old time is reached again."""

from __future__ import annotations

import pytest

from executors.fake import Script
from store import tables
from store.engine import Store
from tests.support.fleet import MINUTE_MS, T0_MS, Fleet

HOUR_MS = 60 * MINUTE_MS


@pytest.mark.parametrize("phase", ["queued", "starting", "running", "stopping"])
async def test_clock_that_is_put_back_an_hour_stops_no_job_and_turns_no_stamp(store: Store, phase: str) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(start_ms=1_000 if phase == "starting" else 0, duration_ms=5_000, stop_ms=1_000))
    if phase != "queued":
        await world.settle()
    if phase == "stopping":
        await world.cancel(job)
        await world.settle()

    world.now_ms -= HOUR_MS
    await world.settle()
    await world.pass_time(HOUR_MS + 10_000)
    await world.settle()

    (lease,) = await world.leases(job)
    stamps = [lease[name] for name in ("granted_at_ms", "running_at_ms", "ended_at_ms", "released_at_ms")]
    assert await world.state(job) == ("cancelled" if phase == "stopping" else "succeeded")
    assert stamps == sorted(stamps)


async def test_leases_that_are_granted_after_the_clock_was_put_back_do_not_begin_before_the_last_stamp(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.submit()
    await world.settle()
    world.now_ms -= HOUR_MS
    later = await world.submit()

    await world.settle()

    assert [lease["granted_at_ms"] for lease in await world.leases(later)] == [T0_MS]


async def test_what_is_decided_holds_at_the_time_that_is_stamped(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.settle()
    await world.set_quota("acme", 0)  # from now on
    world.now_ms -= HOUR_MS
    job = await world.submit()

    await world.settle(world.scheduler(holder=world.loop.holder))

    assert (await world.state(job), await world.leases(job)) == ("queued", [])


async def test_leader_renews_its_lead_under_a_clock_that_was_put_back(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.step()
    world.now_ms -= HOUR_MS
    await world.pass_time(world.settings.term_ms // 2)

    await world.step()

    assert [row["renewed_at_ms"] - T0_MS for row in await world.rows(tables.Leader)] == [world.settings.term_ms // 2 - HOUR_MS]


async def test_scheduler_takes_over_from_a_dead_one_whose_clock_was_an_hour_ahead(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.step()
    world.now_ms -= HOUR_MS
    second = world.scheduler()

    assert await world.step(second) is True


async def test_forecast_is_made_anew_after_the_clock_was_put_back(store: Store) -> None:
    world = await Fleet(store).begin(quota=1)
    await world.submit(script=Script(duration_ms=HOUR_MS))
    await world.settle()
    await world.submit()
    await world.settle()
    world.now_ms -= HOUR_MS
    await world.submit(priority=5)

    await world.settle()

    waiting = [row for row in await world.rows(tables.JobClass) if row["reason_code"] == "quota_exceeded"]
    assert len(waiting) == 2
    assert all(row["forecast_start_ms"] is not None for row in waiting)


async def test_agent_whose_clock_is_wrong_shifts_no_stamp_out_of_its_place(store: Store) -> None:
    world = await Fleet(store).begin()
    early = await world.submit(script=Script(start_ms=-HOUR_MS, duration_ms=2 * HOUR_MS))
    await world.settle()
    (lease,) = await world.leases(early)
    assert lease["running_at_ms"] == lease["granted_at_ms"] == T0_MS
