"""A cancel reaches a job in every state, also when it comes between what a scheduler read and what it writes."""

from __future__ import annotations

from typing import Any

import pytest

from executors.fake import Script
from store import tables
from store.commands import Command
from store.engine import Store
from store.leases import ApplyChanges
from store.plans import ApplyPlan
from tests.support.fleet import T0_MS, Fleet
from tests.support.hooked import HookedStore


async def test_queued_job_is_cancelled_at_once_and_never_leased(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit()
    await world.cancel(job)

    await world.settle()

    assert (await world.state(job), (await world.job(job)).ended_at_ms, await world.leases(job)) == ("cancelled", T0_MS, [])


async def test_starting_job_is_stopped_before_it_runs(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(start_ms=5_000))
    await world.settle()
    assert await world.state(job) == "starting"
    await world.cancel(job)

    await world.settle()

    (lease,) = await world.leases(job)
    assert (await world.state(job), lease["end_cause"], lease["running_at_ms"]) == ("cancelled", "cancelled", None)
    assert lease["released_at_ms"] == T0_MS


async def test_running_job_is_stopped_and_holds_its_slices_until_it_is_gone(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=600_000, stop_ms=3_000, idle_ms=4_000))
    await world.settle()
    await world.cancel(job)
    await world.settle()

    assert (await world.state(job), world.orders.stopped) == ("running", [row["id"] for row in await world.leases(job)])
    await world.pass_time(3_000)
    await world.settle()
    assert (await world.state(job), len(await world.rows(tables.DeviceClaim))) == ("cancelled", 1)
    await world.pass_time(4_000)
    await world.settle()

    (lease,) = await world.leases(job)
    assert [lease[name] - T0_MS for name in ("stop_requested_at_ms", "ended_at_ms", "released_at_ms")] == [0, 3_000, 7_000]
    assert (lease["end_cause"], await world.rows(tables.DeviceClaim)) == ("cancelled", [])


async def test_lease_that_takes_longer_than_its_grace_is_charged_until_the_grace(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=600_000), tier="short")
    await world.settle()
    world.silence("node-a")
    await world.cancel(job)
    await world.settle()
    await world.pass_time(60_000)
    await world.restart("node-a")

    await world.settle()

    (lease,) = await world.leases(job)
    assert (await world.state(job), lease["end_cause"], lease["grace_ms"]) == ("cancelled", "node_lost", 5_000)
    assert [lease[name] - T0_MS for name in ("ended_at_ms", "released_at_ms")] == [5_000, 60_000]


async def test_cancel_of_an_ended_job_changes_nothing(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=1_000))
    await world.until_ended(job)
    before = await world.everything()

    await world.cancel(job)
    await world.settle()

    assert await world.everything() == before


@pytest.mark.parametrize(
    ("moment", "failure", "state"),
    [
        pytest.param("running", None, "cancelled", id="when a start was seen"),
        pytest.param("succeeded", None, "succeeded", id="when a success was seen"),
        pytest.param("queued", "node", "cancelled", id="when a failure of ours was seen"),
    ],
)
async def test_cancel_between_reading_and_writing_loses_neither_the_cancel_nor_what_was_seen(
    store: Store, moment: str, failure: str | None, state: str
) -> None:
    world = await Fleet(store).begin()
    duration_ms = 9_000 if moment == "running" else 500
    job = await world.submit(script=Script(start_ms=1_000, duration_ms=duration_ms, failure_class=failure))
    await world.settle()
    await world.pass_time(2_000)

    async def cancel_first(command: Command[Any]) -> None:
        if isinstance(command, ApplyChanges) and command.changes[-1].job.get("state") == moment:
            await world.cancel(job)

    await world.step(world.scheduler(HookedStore(store, before=cancel_first), holder=world.loop.holder))
    assert (await world.job(job)).target == "cancel"
    await world.settle()

    (lease,) = await world.leases(job)
    assert (await world.state(job), lease["running_at_ms"]) == (state, T0_MS + 1_000)
    assert lease["released_at_ms"] is not None


async def test_cancel_between_deciding_and_binding_makes_that_start_stale_alone(store: Store) -> None:
    world = await Fleet(store).begin()
    cancelled, other = await world.submit(), await world.submit()

    async def cancel_first(command: Command[Any]) -> None:
        if isinstance(command, ApplyPlan):
            await world.cancel(cancelled)

    await world.step(world.scheduler(HookedStore(store, before=cancel_first)))

    assert (await world.leases(cancelled), len(await world.leases(other))) == ([], 1)
    assert world.orders.started == [(await world.leases(other))[0]["id"]]


async def test_program_that_exits_with_zero_after_it_was_stopped_has_not_succeeded(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 1, "node-b": 1})
    cancelled = await world.submit(script=Script(duration_ms=9_000, stop_exit_code=0))
    evicted = await world.submit(script=Script(duration_ms=9_000, stop_exit_code=0))
    await world.settle()
    (lease,) = await world.leases(evicted)
    (part,) = [row for row in await world.rows(tables.LeaseNode) if row["lease_id"] == lease["id"]]
    await world.pass_time(1_000)
    await world.cancel(cancelled)
    await world.drain(part["node_id"].removeprefix("node_"))

    await world.until_ended(cancelled, evicted)

    assert [await world.state(job) for job in (cancelled, evicted)] == ["cancelled", "succeeded"]
    assert [await world.outcomes(job) for job in (cancelled, evicted)] == [["cancelled"], ["evicted", "completed"]]
