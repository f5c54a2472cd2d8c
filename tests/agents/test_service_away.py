"""The service away, slow to answer or confused: leases go on, and what was seen arrives once and in order."""

from __future__ import annotations

import json

from tests.agents.node_world import World

COUNTS = """
import signal, sys, threading
for number in range(200):
    print("line", number, flush=True)
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
print("WAITING", flush=True)
told.wait()
"""
SHORT = "print('ran', flush=True)"


async def test_what_happens_while_the_service_is_away_arrives_afterwards_once_and_in_order(world_on_each: World) -> None:
    world = world_on_each
    job_id = await world.submit("for number in range(200): print('line', number, flush=True)")
    async with world.running() as agent:
        await world.until(world.state_is(job_id, "starting", "running"))
        world.wire.is_down = True
        await world.until(world.spool_holds(agent, "gone"))
        unseen = await world.job(job_id)
        world.wire.is_down = False
        job = await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    assert unseen["state"] in {"starting", "running"}
    assert (job["state"], await world.observed(await world.lease_of(job_id))) == ("succeeded", ["started", "exited", "gone"])
    assert await world.log(job_id) == "".join(f"line {number}\n" for number in range(200))


async def test_batches_whose_answer_was_lost_count_once(world_on_each: World) -> None:
    world = world_on_each
    world.wire.lost_replies = 20
    job_id = await world.submit(SHORT)
    async with world.running():
        job = await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    lease_id = await world.lease_of(job_id)
    sent = [report["agent_seq"] for batch in world.wire.batches for report in json.loads(batch)["observations"]]
    assert len(sent) > len(set(sent))
    assert (job["state"], await world.log(job_id)) == ("succeeded", "ran\n")
    assert await world.observed(lease_id) == ["started", "exited", "gone"]


async def test_lease_that_was_bound_while_the_agent_was_cut_off_starts_when_it_is_back(world: World) -> None:
    async with world.running():
        world.wire.is_down = True
        job_id = await world.submit(SHORT)
        await world.until(world.state_is(job_id, "starting"))
        world.wire.is_down = False
        job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["attempt"]) == ("succeeded", 1)


async def test_job_cancelled_while_the_agent_was_cut_off_is_stopped_when_it_is_back(world: World) -> None:
    job_id = await world.submit(COUNTS)
    async with world.running():
        await world.until(world.has_said(job_id, "WAITING"))
        world.wire.is_down = True
        await world.member.post(f"/v1/jobs/{job_id}/cancel")
        await world.api.schedule()
        world.wire.is_down = False
        job = await world.until(world.has_ended(job_id))

    assert job["state"] == "cancelled"


async def test_answers_that_make_no_sense_cost_no_lease(world: World) -> None:
    job_id = await world.submit(COUNTS)
    async with world.running():
        await world.until(world.has_said(job_id, "WAITING"))
        world.wire.nonsense = 5
        await world.until(world.wire.is_sane)
        still = await world.job(job_id)
        await world.member.post(f"/v1/jobs/{job_id}/cancel")
        await world.until(world.has_ended(job_id))

    assert (still["state"], still["attempt"]) == ("running", 1)


async def test_silent_agent_still_sends_heartbeats(world: World) -> None:
    async with world.running():
        first = (await world.node())["heartbeat_at"]

        async def is_newer() -> bool:
            return bool((await world.node())["heartbeat_at"] > first)

        assert await world.until(is_newer)


async def test_silent_lease_costs_no_request_beyond_the_heartbeat(world: World) -> None:
    looks = world.count_looks()
    job_id = await world.submit(COUNTS)
    async with world.running(heartbeat_ms=3_600_000):
        await world.until(world.has_said(job_id, "WAITING"))
        batches, first = len(world.wire.batches), looks.count

        async def has_looked_often() -> bool:
            return looks.count > first + 20

        await world.until(has_looked_often)
        sent = len(world.wire.batches) - batches

    assert sent == 0


async def test_lease_that_the_service_no_longer_names_is_stopped(world: World) -> None:
    job_id = await world.submit(COUNTS)
    async with world.running():
        await world.until(world.has_said(job_id, "WAITING"))
        world.wire.is_amnesiac = True
        await world.until(world.is_free)

    assert await world.observed(await world.lease_of(job_id)) == ["started", "exited", "gone"]
