"""A lease from its assignment to the word that its devices are free, through the real agent and the real service."""

from __future__ import annotations

import json
import os

import pytest

from agents import lease_runs
from tests.agents.node_world import World, packed
from tests.sandbox import plain_environment

TRAINS = """
from terrace import runtime
for step in range(3):
    runtime.report_progress(step=step + 1, total=3, loss=1.0 / (step + 1))
    print("step", step + 1, flush=True)
"""
WAITS = """
import signal, sys, threading
from terrace import runtime
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
print("RUNNING", runtime.context().attempt, flush=True)
told.wait()
print("TOLD", runtime.context().notice_file.read_text(), flush=True)
sys.exit(9)
"""


async def test_job_runs_and_its_devices_are_free_again(world_on_each: World) -> None:
    world = world_on_each
    job_id = await world.submit(TRAINS, replicas=2)
    async with world.running():
        job = await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    assert (job["state"], job["exit_code"], job["attempt"]) == ("succeeded", 0, 1)
    assert await world.log(job_id) == "step 1\nstep 2\nstep 3\n"
    assert await world.observed(job["attempts"][0]["lease_id"]) == ["started", "exited", "gone"]


async def test_newest_progress_reaches_the_owner(world: World) -> None:
    job_id = await world.submit(f"{TRAINS}\nimport signal; signal.pause()")
    async with world.running():
        job = await world.until(world.state_is(job_id, "running"))
        await world.until(world.has_said(job_id, "step 3"))
        job = await world.job(job_id)

    assert (job["progress"]["step"], job["progress"]["total"]) == (3, 3)


async def test_word_of_a_checkpoint_reaches_the_service(world: World) -> None:
    job_id = await world.submit("from terrace import runtime; runtime.report_checkpoint(step=5, total=9, loss=0.5)")
    async with world.running():
        await world.until(world.has_ended(job_id))

    assert await world.told("progress") == [{"step": 5, "total": 9, "metrics": {"loss": 0.5}, "checkpoint": True}]


async def test_job_sees_its_archive_and_its_environment(world: World) -> None:
    program = "import os; print(open('data/x.txt').read(), os.environ['MINE'], sorted(os.listdir('.')))"
    job_id = await world.submit(program, archive=packed({"data/x.txt": "sent"}), environment={"MINE": "too"})
    async with world.running():
        await world.until(world.has_ended(job_id))

    assert await world.log(job_id) == "sent too ['data']\n"


async def test_failure_of_user_code_is_told_with_its_code(world: World) -> None:
    job_id = await world.submit("import sys; print('last words', flush=True); sys.exit(3)")
    async with world.running():
        job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["exit_code"], job["failure_class"]) == ("failed", 3, "user_code")
    assert await world.log(job_id) == "last words\n"


async def test_bad_requirement_is_the_user_s_environment_and_is_not_tried_again(world: World) -> None:
    job_id = await world.submit("print(1)", requirements="--index-url https://host.example\n")
    async with world.running():
        job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["failure_class"], job["attempt"]) == ("failed", "environment", 1)
    assert "line 1: '--index-url" in job["message"]


async def test_cluster_that_does_not_come_up_is_tried_again_until_the_attempts_are_spent(world: World) -> None:
    job_id = await world.submit("print(1)", maximum_attempts=2)
    with plain_environment.made(sin="dies") as runtime_path:
        async with world.running(runtime_path=runtime_path):
            job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["failure_class"], job["attempt"]) == ("failed", "platform", 2)
    assert "Ray's last words" in job["message"]


async def test_cancelled_job_gets_its_notice_and_ends_cancelled(world: World) -> None:
    job_id = await world.submit(WAITS)
    async with world.running():
        await world.until(world.has_said(job_id, "RUNNING"))
        await world.member.post(f"/v1/jobs/{job_id}/cancel")
        job = await world.until(world.has_ended(job_id))
        await world.until(world.has_said(job_id, "TOLD"))
        await world.until(world.is_free)

    assert job["state"] == "cancelled"
    assert json.loads((await world.log(job_id)).split("TOLD ")[1])["cause"] == "stop"
    assert [data["was_stopped"] for data in await world.told("exited")] == [True]


async def test_end_that_came_by_itself_is_told_as_such(world: World) -> None:
    job_id = await world.submit("print(1)")
    async with world.running():
        await world.until(world.has_ended(job_id))

    assert await world.told("exited") == [{"exit_code": 0, "message": "succeeded", "was_stopped": False}]


async def test_cancel_before_the_agent_hears_of_the_lease_starts_nothing(world: World) -> None:
    async with world.running():
        world.wire.is_down = True
        job_id = await world.submit(WAITS)
        await world.until(world.state_is(job_id, "starting"))
        await world.member.post(f"/v1/jobs/{job_id}/cancel")
        await world.api.schedule()
        world.wire.is_down = False
        job = await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    assert (job["state"], await world.log(job_id)) == ("cancelled", "")
    assert await world.observed(await world.lease_of(job_id)) == ["exited", "gone"]
    assert [data["was_stopped"] for data in await world.told("exited")] == [True]


async def test_time_limit_is_kept_by_the_lease_itself(world: World) -> None:
    job_id = await world.submit(WAITS, limit_seconds=1)
    async with world.running():
        job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["failure_class"]) == ("failed", "time_limit")
    assert json.loads((await world.log(job_id)).split("TOLD ")[1])["cause"] == "time_limit"


async def test_output_of_any_length_arrives_whole_in_pieces_that_the_service_takes(world: World) -> None:
    letters = "ü€𝄞"
    job_id = await world.submit(f"print({letters!r} * 100_000)")
    async with world.running():
        await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    assert await world.log(job_id) == letters * 100_000 + "\n"
    pieces = [
        report["data"]["text"] for batch in world.wire.batches for report in json.loads(batch)["observations"] if report["kind"] == "log"
    ]
    assert max(len(piece) for piece in pieces) <= lease_runs.OUTPUT_CHARACTERS_MAXIMUM


async def test_directory_of_an_ended_lease_is_deleted_and_its_checkpoint_kept(world: World) -> None:
    job_id = await world.submit("from terrace import runtime; (runtime.context().checkpoint_dir / 'step').write_text('41')")
    async with world.running():
        await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    state = world.settings.state_dir
    assert [*(state / "leases").iterdir()] == [*(state / "handles").iterdir()] == [*(state / "inputs").iterdir()] == []
    assert (state / "checkpoints" / job_id / "step").read_text() == "41"


@pytest.mark.parametrize("name", ["spool.db", "samples.db"])
async def test_what_the_agent_keeps_is_for_its_own_eyes(name: str, world: World) -> None:
    async with world.running():
        mode = os.stat(world.settings.state_dir / name).st_mode

    assert mode & 0o077 == 0
