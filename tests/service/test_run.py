"""The scheduler left to itself: it wakes, survives what goes wrong, leaves the lead to others, and says how it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import REGISTRY, generate_latest

from scheduler.service import Loop, SchedulerSettings
from store import tables
from store.commands import Command
from store.engine import Store
from store.errors import StaleError
from store.leader import TakeLead
from store.plans import ApplyPlan
from tests.support.fleet import Fleet
from tests.support.hooked import HookedStore

QUICK = SchedulerSettings(retry_ms=1)


@asynccontextmanager
async def running(loop: Loop) -> AsyncIterator[None]:
    """Let a scheduler run; stop it as the service does, and let its failure fail the test."""
    stop = asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


def leased(world: Fleet, *jobs: str) -> Callable[[], Any]:
    """Return the question whether the jobs have leases with handles: the end of a cycle that started them."""

    async def is_so() -> bool:
        return {row["job_id"] for row in await world.rows(tables.Lease) if row["handle"] is not None} >= set(jobs)

    return is_so


async def test_submit_wakes_a_waiting_scheduler(store: Store) -> None:
    world = await Fleet(store, settings=SchedulerSettings(idle_ms=10**9)).begin()
    async with running(world.loop):
        await world.eventually(lambda: world.rows(tables.Leader))

        job = await world.submit()

        await world.eventually(leased(world, job))
    await world.check()


async def test_what_comes_during_a_cycle_is_one_cycle_more(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 64}, quota=64)
    binds: list[int] = []
    is_binding, may_go_on = asyncio.Event(), asyncio.Event()

    async def hold(command: Command[Any]) -> None:
        if isinstance(command, ApplyPlan):
            binds.append(len(command.starts))
            is_binding.set()
            await may_go_on.wait()

    first = await world.submit()
    async with running(world.scheduler(HookedStore(store, before=hold))):
        await is_binding.wait()
        later = [await world.submit() for _ in range(20)]
        may_go_on.set()
        await world.eventually(leased(world, first, *later))

    assert binds == [1, 20]


async def test_exception_in_a_cycle_is_counted_and_the_next_cycle_does_its_work(store: Store) -> None:
    world = await Fleet(store, settings=QUICK).begin()
    broken = ["the database is away"] * 3
    failures = REGISTRY.get_sample_value("terrace_scheduler_cycle_failures_total") or 0

    async def fail(command: Command[Any]) -> None:
        if isinstance(command, ApplyPlan) and broken:
            raise RuntimeError(broken.pop())

    job = await world.submit()
    async with running(world.scheduler(HookedStore(store, before=fail))):
        await world.eventually(leased(world, job))

    assert (REGISTRY.get_sample_value("terrace_scheduler_cycle_failures_total") or 0) - failures == 3
    await world.check()


async def test_scheduler_that_loses_the_lead_goes_on_standing_by_and_leads_again(store: Store) -> None:
    world = await Fleet(store, settings=QUICK).begin()
    taken: list[str] = []

    async def take_away(command: Command[Any]) -> None:
        if isinstance(command, ApplyPlan) and not taken:
            taken.append("once")
            raise StaleError("not_leading", "another scheduler leads")

    job = await world.submit()
    async with running(world.scheduler(HookedStore(store, before=take_away))):
        await world.eventually(leased(world, job))

    assert taken == ["once"]


async def test_scheduler_that_stops_leaves_the_lead_to_whoever_comes(store: Store) -> None:
    world = await Fleet(store).begin()
    async with running(world.loop):
        await world.eventually(lambda: world.rows(tables.Leader))

    assert [row["holder"] for row in await world.rows(tables.Leader)] == [""]
    assert await store.run(TakeLead("scheduler", "another", world.now_ms, world.settings.term_ms)) is not None


async def test_metrics_tell_of_the_queue_the_leases_and_the_lead(store: Store) -> None:
    world = await Fleet(store).begin(quota=1)
    await world.submit()
    await world.settle()
    await world.submit()
    await world.submit(gpus=64)
    await world.settle()

    values = {
        'terrace_scheduler_queued_jobs{reason="quota_exceeded"}': 1.0,
        'terrace_scheduler_queued_jobs{reason="exceeds_maximum"}': 1.0,
        "terrace_scheduler_leading": 1.0,
        "terrace_scheduler_open_leases": 1.0,
        "terrace_scheduler_overdue_leases": 0.0,
    }
    shown = dict(line.rsplit(" ", 1) for line in generate_latest().decode().splitlines() if not line.startswith("#"))
    assert {name: float(shown[name]) for name in values} == values
    counters = ("starts", "stale_starts", "observations", "stops", "executor_calls", "cycle_failures", "cycle_seconds", "decide_seconds")
    assert [name for name in counters if f"terrace_scheduler_{name}" not in generate_latest().decode()] == []


async def test_stop_that_is_late_is_counted_as_overdue(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit()
    await world.settle()
    world.silence("node-a")
    await world.cancel(job)
    await world.settle()
    await world.pass_time(10_001)

    await world.settle()

    assert REGISTRY.get_sample_value("terrace_scheduler_overdue_leases") == 1
