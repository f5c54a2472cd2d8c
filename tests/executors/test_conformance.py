"""What every executor promises (executors/base.py), held by each of them over a real database."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from executors.base import Phase, Status
from store.engine import Store
from tests.executors.worlds import SCRIPT, ExecutorWorld, Machines, RowsAndFake

WORLDS = {"fake": RowsAndFake, "nodes": Machines}


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, store: Store) -> ExecutorWorld:
    """The surroundings of each executor."""
    made: ExecutorWorld = WORLDS[request.param](store)
    return made


async def phase(world: ExecutorWorld, *orders: object) -> Phase | list[Phase]:
    """Return the phase of one lease, or of several in order."""
    statuses = await world.executor.status(list(orders))  # type: ignore[arg-type]
    phases = [statuses[order.lease_id].phase for order in orders]  # type: ignore[attr-defined]
    return phases[0] if len(phases) == 1 else phases


async def test_start_returns_a_handle_that_survives_json(world: ExecutorWorld) -> None:
    handle = await world.executor.start(await world.commit())

    assert json.loads(json.dumps(handle)) == handle


async def test_second_start_finds_the_first(world: ExecutorWorld) -> None:
    order = await world.commit()

    handles = [await world.executor.start(order) for _ in range(2)]
    handles += await asyncio.gather(*(world.executor.start(order) for _ in range(3)))
    await world.pass_time(5_000)
    handles.append(await world.executor.start(replace(order, handle=handles[0])))
    await world.pass_time(5_000)

    assert handles == [handles[0]] * 6
    assert world.started == [order.lease_id]


async def test_lease_goes_through_its_phases(world: ExecutorWorld) -> None:
    order = await world.commit()
    await world.executor.start(order)
    await world.pass_time(0)
    seen = [await phase(world, order)]

    for ms in (SCRIPT.start_ms, SCRIPT.duration_ms, SCRIPT.idle_ms):
        await world.pass_time(ms)
        seen.append(await phase(world, order))

    assert seen == [Phase.STARTING, Phase.RUNNING, Phase.EXITED, Phase.GONE]


async def test_stop_makes_an_end_within_the_grace_and_says_gone_only_then(world: ExecutorWorld) -> None:
    order = await world.commit()
    await world.executor.start(order)
    await world.pass_time(2_000)
    await world.commit_stop(order)
    await world.executor.stop(order)
    await world.pass_time(0)
    seen = [await phase(world, order)]

    for ms in (SCRIPT.stop_ms, SCRIPT.idle_ms):
        await world.pass_time(ms)
        seen.append(await phase(world, order))

    assert seen == [Phase.RUNNING, Phase.EXITED, Phase.GONE]
    assert SCRIPT.stop_ms <= order.grace_ms


async def test_stopping_again_or_without_a_handle_is_no_error(world: ExecutorWorld) -> None:
    order = await world.commit()
    handle = await world.executor.start(order)
    await world.pass_time(2_000)
    await world.commit_stop(order)

    for known in (order, replace(order, handle=handle), order):
        await world.executor.stop(known)
        await world.pass_time(SCRIPT.stop_ms + SCRIPT.idle_ms)
    await world.executor.stop(order)

    assert await phase(world, order) is Phase.GONE


async def test_start_that_arrives_after_the_stop_starts_nothing(world: ExecutorWorld) -> None:
    order = await world.commit()
    await world.commit_stop(order)
    await world.executor.stop(order)

    await world.executor.start(order)
    for _ in range(3):
        await world.pass_time(10_000)

    assert world.started == []
    assert await phase(world, order) in (Phase.GONE, Phase.ABSENT, Phase.STARTING)


async def test_status_answers_for_many_at_once_and_for_nothing_else(world: ExecutorWorld) -> None:
    first, second, third = [await world.commit() for _ in range(3)]
    await world.executor.start(first)
    await world.executor.start(second)
    await world.executor.start(third)
    await world.pass_time(2_000)
    unknown = replace(first, lease_id="lea_that_nobody_committed")

    statuses = await world.executor.status([first, third, unknown])

    assert {lease: status.phase for lease, status in statuses.items()} == {
        first.lease_id: Phase.RUNNING, third.lease_id: Phase.RUNNING, unknown.lease_id: Phase.ABSENT,
    }  # fmt: skip
    assert statuses[unknown.lease_id] == Status(Phase.ABSENT)
    assert await world.executor.status([]) == {}


async def test_status_tells_the_times_at_which_things_were_seen(world: ExecutorWorld) -> None:
    order = await world.commit()
    await world.executor.start(order)
    await world.pass_time(0)
    for _ in range(3):
        await world.pass_time(40_000)

    status = (await world.executor.status([order]))[order.lease_id]

    assert status.started_at_ms is not None
    assert status.exited_at_ms is not None
    assert status.gone_at_ms is not None
    assert (status.exited_at_ms - status.started_at_ms, status.gone_at_ms - status.exited_at_ms) == (60_000, 500)
