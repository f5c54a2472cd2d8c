"""Two schedulers on one database: one leads, the other takes over, and whoever lost the lead changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from executors.fake import Script
from scheduler.service.lead import LEADER
from store import tables
from store.commands import Command
from store.engine import Store
from store.errors import StaleError
from store.leader import GiveUpLead
from store.plans import ApplyPlan
from tests.support.fleet import Fleet
from tests.support.hooked import HookedStore


async def epoch(world: Fleet) -> tuple[str, int]:
    """Return who leads, and the epoch."""
    (row,) = await world.rows(tables.Leader)
    return row["holder"], row["epoch"]


async def test_first_scheduler_leads_and_the_second_stands_by(store: Store) -> None:
    world = await Fleet(store).begin()
    second = world.scheduler()

    led = [await world.step(), await world.step(second), await world.step(), await world.step(second)]

    assert led == [True, False, True, False]
    assert await epoch(world) == (world.loop.holder, 1)


async def test_standing_by_writes_nothing(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.step()
    written: list[Command[Any]] = []

    async def note(command: Command[Any]) -> None:
        written.append(command)

    await world.step(world.scheduler(HookedStore(store, before=note)))

    assert written == []


async def test_second_takes_over_a_term_after_the_first_fell_silent_and_goes_on_with_its_leases(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit()
    await world.settle()
    second = world.scheduler()

    await world.pass_time(world.settings.term_ms - 1)
    assert await world.step(second) is False
    await world.pass_time(1)
    await world.settle(second)
    await world.pass_time(20_000)
    await world.settle(second)

    assert await epoch(world) == (second.holder, 2)
    assert (await world.state(job), len(await world.leases(job))) == ("succeeded", 1)


async def test_lead_that_was_given_up_is_taken_at_once(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.step()
    assert world.loop.lead.fence is not None
    await store.run(GiveUpLead(world.loop.lead.fence))

    second = world.scheduler()

    assert (await world.step(second), (await epoch(world))[1]) == (True, 2)


async def test_leader_that_was_paused_in_the_middle_of_a_cycle_binds_nothing_when_it_wakes(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit()
    second = world.scheduler()

    async def pause(command: Command[Any]) -> None:
        if isinstance(command, ApplyPlan):
            await world.pass_time(world.settings.term_ms)
            await world.step(second)

    first = world.scheduler(HookedStore(store, before=pause))
    with pytest.raises(StaleError):
        await world.step(first)

    (lease,) = await world.leases(job)
    assert (await epoch(world), world.orders.started) == ((second.holder, 2), [lease["id"]])


async def test_leader_that_lost_its_lead_stands_by_at_its_next_renewal(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.step()
    await world.pass_time(world.settings.term_ms)
    second = world.scheduler()
    await world.step(second)

    assert [await world.step(), await world.step(second)] == [False, True]
    assert world.loop.lead.fence is None


async def test_late_start_of_a_leader_that_lost_its_lead_starts_nothing_that_was_stopped(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=600_000))
    await world.step()
    (late,) = world.fake.live
    await world.cancel(job)
    await world.pass_time(world.settings.term_ms)
    await world.settle(world.scheduler())

    await world.fake.start(late)

    assert (await world.state(job), world.fake.live) == ("cancelled", ())


async def test_leader_keeps_its_name_in_the_table_of_leaders(store: Store) -> None:
    world = await Fleet(store).begin()
    for _ in range(5):
        await world.step()
        await world.pass_time(world.settings.term_ms // 3)

    (row,) = await world.rows(tables.Leader)

    assert (row["name"], row["holder"], row["epoch"]) == (LEADER, world.loop.holder, 1)
    assert world.now_ms - row["renewed_at_ms"] == world.settings.term_ms // 3
