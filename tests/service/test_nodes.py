"""Nodes that drain, fall silent and come back: their jobs go elsewhere only when nothing of them can be left."""

from __future__ import annotations

import pytest

from executors.fake import Script
from store import tables
from store.engine import Store
from store.errors import ConflictError
from store.lost_nodes import DeclareGone
from tests.support.fleet import MINUTE_MS, T0_MS, Fleet


async def node_of(world: Fleet, job: str) -> str:
    """Return the node of the job's newest lease."""
    lease = (await world.leases(job))[-1]
    (part,) = [row for row in await world.rows(tables.LeaseNode) if row["lease_id"] == lease["id"]]
    return str(part["node_id"]).removeprefix("node_")


async def test_drained_node_evicts_its_job_which_starts_again_on_another(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 1, "node-b": 1})
    job = await world.submit(script=Script(duration_ms=MINUTE_MS, stop_ms=2_000))
    await world.settle()
    drained = await node_of(world, job)
    await world.drain(drained)
    await world.settle()
    assert (await world.state(job), await node_of(world, job)) == ("running", drained)

    await world.pass_time(2_000)
    await world.settle()

    assert (await world.state(job), (await world.job(job)).attempt) == ("running", 2)
    assert await node_of(world, job) != drained
    assert [lease["end_cause"] for lease in await world.leases(job)] == ["evicted", None]


async def test_job_waits_while_the_only_node_drains_and_starts_when_it_is_back(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 1})
    job = await world.submit()
    await world.settle()
    await world.drain("node-a")
    await world.settle()
    assert (await world.state(job), (await world.job(job)).answer.reason_unblocks_when) == ("queued", "node_returns")

    await world.drain("node-a", is_draining=False)
    await world.settle()

    assert (await world.state(job), (await world.job(job)).attempt) == ("running", 2)


async def test_silent_node_keeps_its_lease_and_gets_nothing_new(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 4})
    job = await world.submit()
    await world.settle()
    world.silence("node-a")
    await world.pass_time(world.settings.node_lost_after_ms + 1)
    late = await world.submit()

    await world.settle()

    (lease,) = await world.leases(job)
    assert (await world.state(job), lease["target"], lease["ended_at_ms"]) == ("running", "run", None)
    assert (await world.state(late), [row["is_lost"] for row in await world.rows(tables.Node)]) == ("queued", [True])


async def test_job_of_a_silent_node_runs_again_once_its_agent_came_back_and_proved_it_gone(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 1, "node-b": 1})
    job = await world.submit(script=Script(duration_ms=10 * MINUTE_MS))
    await world.settle()
    lost = await node_of(world, job)
    world.silence(lost)
    await world.pass_time(5 * MINUTE_MS)
    await world.settle()
    assert len(await world.leases(job)) == 1

    await world.restart(lost)
    await world.settle()

    first, second = await world.leases(job)
    assert (first["end_cause"], first["failure_class"], first["released_at_ms"]) == ("node_lost", "node", T0_MS + 5 * MINUTE_MS)
    assert (await world.state(job), second["attempt"], second["granted_at_ms"]) == ("running", 2, T0_MS + 5 * MINUTE_MS)


async def test_node_that_was_silent_for_a_while_tells_what_happened_at_the_times_when_it_happened(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=MINUTE_MS))
    await world.settle()
    world.silence("node-a")
    await world.pass_time(5 * MINUTE_MS)
    await world.settle()
    world.reconnect("node-a")
    await world.pass_time(1)

    await world.settle()

    (lease,) = await world.leases(job)
    assert (await world.state(job), lease["ended_at_ms"] - T0_MS) == ("succeeded", MINUTE_MS)
    assert [row["is_lost"] for row in await world.rows(tables.Node)] == [True]
    await world.pass_time(world.settings.term_ms)
    await world.settle()
    assert [row["is_lost"] for row in await world.rows(tables.Node)] == [False]


async def test_job_that_is_cancelled_on_a_silent_node_ends_when_the_node_is_heard_again(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=60 * MINUTE_MS))
    await world.settle()
    world.silence("node-a")
    await world.cancel(job)
    await world.pass_time(MINUTE_MS)
    await world.settle()
    assert (await world.state(job), len(await world.rows(tables.DeviceClaim))) == ("running", 1)

    await world.restart("node-a")
    await world.settle()

    assert (await world.state(job), await world.outcomes(job)) == ("cancelled", ["node_lost"])


async def given_up(store: Store) -> tuple[Fleet, str, str]:
    """Return a world in which the machine under a job has burnt and an operator has said so."""
    world = await Fleet(store).begin(nodes={"node-a": 1, "node-b": 1})
    job = await world.submit(script=Script(duration_ms=30 * MINUTE_MS))
    await world.settle()
    lost = await node_of(world, job)
    world.silence(lost)
    await world.pass_time(world.settings.node_lost_after_ms + 1)
    await world.settle()
    world.fake.restart(lost)  # it is off: nothing runs there any more
    world.silence(lost)
    await store.run(DeclareGone(lost, world.now_ms, "usr_op"))
    await world.settle()
    return world, job, lost


async def test_node_that_an_operator_declares_gone_lets_go_of_its_jobs(store: Store) -> None:
    world, job, lost = await given_up(store)

    first, second = await world.leases(job)
    assert (first["end_cause"], first["released_at_ms"], second["released_at_ms"]) == ("node_lost", world.now_ms, None)
    assert (await node_of(world, job) != lost, await world.state(job)) == (True, "running")


async def test_devices_of_a_node_that_is_gone_are_quarantined_until_its_next_inventory(store: Store) -> None:
    world, _, lost = await given_up(store)
    other = await world.submit()
    await world.settle()
    health = {row["node_id"]: row["health"] for row in await world.rows(tables.Device)}
    assert (health[f"node_{lost}"], await world.state(other)) == ("quarantined", "queued")

    await world.restart(lost)
    await world.settle()

    assert (await world.state(other), await node_of(world, other)) == ("running", lost)


async def test_node_that_is_heard_cannot_be_declared_gone(store: Store) -> None:
    world = await Fleet(store).begin()
    before = await world.everything()

    with pytest.raises(ConflictError, match="node 'node-a' is not lost"):
        await store.run(DeclareGone("node-a", world.now_ms))

    assert await world.everything() == before
