"""The agent's disk full while leases run: nothing ends because of it, and what matters is told when there is room again."""

from __future__ import annotations

from agents.spool import DROPPED_NOTE
from tests.agents.node_world import World
from tests.agents.obstacles import refusing

WAITS = """
import os, threading, time
from terrace import runtime
print("WAITING", flush=True)
step = 0
while not os.path.exists(runtime.context().checkpoint_dir / "go"):
    step += 1
    print("x" * 10_000, flush=True)
    time.sleep(0.01)
print("END", flush=True)
"""


async def test_running_lease_goes_on_gives_its_room_back_and_its_end_is_told_when_there_is_some(world: World) -> None:
    job_id = await world.submit(WAITS)
    async with world.running() as agent:
        await world.until(world.has_said(job_id, "WAITING"))
        with refusing(agent.spool):
            await world.until(world.has_written_more(job_id))
            (world.settings.state_dir / "checkpoints" / job_id / "go").touch()
            await world.until(world.has_no_directory(job_id))
            unseen = await world.job(job_id)
        job = await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    assert (unseen["state"], job["state"], job["attempt"]) == ("running", "succeeded", 1)
    assert await world.observed(await world.lease_of(job_id)) == ["started", "exited", "gone"]


async def test_output_that_was_lost_is_marked(world: World) -> None:
    job_id = await world.submit(WAITS)
    async with world.running() as agent:
        await world.until(world.has_said(job_id, "WAITING"))
        with refusing(agent.spool):
            await world.until(world.has_written_more(job_id))
        await world.until(world.has_said(job_id, DROPPED_NOTE))
        (world.settings.state_dir / "checkpoints" / job_id / "go").touch()
        await world.until(world.has_ended(job_id))

    assert (await world.log(job_id)).endswith("END\n")


async def test_lease_that_cannot_be_written_down_is_not_started_before_it_can(world: World) -> None:
    async with world.running() as agent:
        with refusing(agent.spool):
            job_id = await world.submit("print('ran')")
            await world.until(world.state_is(job_id, "starting"))
            await world.until(world.has_been_asked(3))
            started = [*world.settings.state_dir.glob("leases/*")]
        job = await world.until(world.has_ended(job_id))

    assert (started, job["state"], job["attempt"]) == ([], "succeeded", 1)
