"""The agent's own end: killed, stopped, started twice. Its leases end with it, and its next life says what became of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agents import daemon
from agents.sandbox.spec import SandboxError
from store.engine import Store
from tests.agents.node_world import NODE, World
from tests.sandbox import machine_processes, plain_environment
from tests.support.api_server import served
from tests.support.service import REPOSITORY
from tests.support.waiting import wait_until

ORPHAN = "1000.001953125"
WAITS = f"""
import signal, subprocess, threading
from terrace import runtime
job, told = runtime.context(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
subprocess.Popen(["sleep", "{ORPHAN}"], env={{}}, start_new_session=True)
with (job.checkpoint_dir / "attempts").open("a") as file:
    file.write(f"{{job.attempt}}\\n")
print("RUNNING", job.attempt, flush=True)
if job.attempt == 1:
    told.wait()
    print("SAVED", flush=True)
else:
    print((job.checkpoint_dir / "attempts").read_text().split(), flush=True)
"""


class Programs:
    """Boots of one node's agent, each a process."""

    def __init__(self, folder: Path, values: dict[str, object], stack: ExitStack) -> None:
        self._order, self._stack = folder / "settings.json", stack
        self._order.write_text(json.dumps(values))

    def start(self) -> subprocess.Popen[bytes]:
        """Start one more."""
        command = [sys.executable, str(Path(__file__).with_name("agent_program.py")), str(self._order)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._stack.callback(process.stderr.close if process.stderr else lambda: None)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def programs(world: World, tmp_path: Path, plain_runtime: Path) -> Iterator[Programs]:
    """An agent of the world's node that reaches the world's service on loopback."""
    with ExitStack() as stack:
        store = Store.open(world.api.store.url)
        stack.callback(store.close)
        url = stack.enter_context(served(store, tmp_path))
        settings = world.settings
        values = {name: getattr(settings, name) for name in ("token", "heartbeat_ms", "watch_ms", "sample_ms", "metrics_port")}
        values |= {"api_url": url, "state_dir": str(settings.state_dir), "runtime_path": str(plain_runtime)}
        values |= {"job_python": plain_environment.PYTHON, "node": NODE, "long_poll_seconds": 1.0}
        yield Programs(tmp_path, values, stack)


async def test_kill_of_the_agent_ends_its_leases_and_the_next_one_says_so_and_runs_the_job_again(world: World, programs: Programs) -> None:
    first = programs.start()
    await world.until(world.node_is("ready"))
    job_id = await world.submit(WAITS)
    await world.until(world.has_said(job_id, "RUNNING 1"))
    lease_id = await world.lease_of(job_id)

    first.kill()
    wait_until(lambda: machine_processes.sleeping(ORPHAN) == [], seconds=10)
    programs.start()

    job = await world.until(world.has_ended(job_id))
    await world.until(world.is_free)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert await world.observed(lease_id) == ["started", "lost", "gone"]
    assert "['1', '2']" in await world.log(job_id)


async def test_agent_that_is_stopped_gives_notice_and_its_jobs_run_again(world: World, programs: Programs) -> None:
    first = programs.start()
    await world.until(world.node_is("ready"))
    job_id = await world.submit(WAITS)
    await world.until(world.has_said(job_id, "RUNNING 1"))
    lease_id = await world.lease_of(job_id)

    first.send_signal(signal.SIGTERM)
    status = first.wait(30)

    await world.until(world.state_is(job_id, "queued", "starting"))
    assert (status, machine_processes.sleeping(ORPHAN)) == (0, [])
    assert await world.log(job_id, attempt=1) == "RUNNING 1\nSAVED\n"
    assert await world.observed(lease_id) == ["started", "lost", "gone"]


async def test_second_agent_on_a_state_directory_is_refused(world: World, programs: Programs) -> None:
    programs.start()
    await world.until(world.node_is("ready"))

    second = programs.start()

    assert second.wait(30) != 0
    assert second.stderr is not None
    assert f"state_dir: another agent works in {world.settings.state_dir}" in second.stderr.read().decode()


async def test_agent_without_its_job_environment_refuses_to_start(world: World) -> None:
    with pytest.raises(SandboxError, match="job_python: /no/such/python cannot be run"):
        await daemon.run(world.agent(job_python="/no/such/python").settings, asyncio.Event())


async def test_memory_of_a_damaged_spool_costs_the_leases_an_attempt_and_runs_none_twice(world: World) -> None:
    job_id = await world.submit(WAITS)
    async with world.running(stop_grace_ms=0):
        await world.until(world.has_said(job_id, "RUNNING 1"))
        lease_id = await world.lease_of(job_id)
        world.wire.is_down = True
    (world.settings.state_dir / "spool.db").write_bytes(b"not a database" * 1_000)
    world.wire.is_down = False

    async with world.running():
        job = await world.until(world.has_ended(job_id))
        await world.until(world.is_free)

    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert await world.observed(lease_id) == ["started", "lost", "gone"]


async def test_reports_of_an_earlier_life_arrive_in_the_next_one(world: World) -> None:
    job_id = await world.submit("print('ran', flush=True)")
    async with world.running(flush_seconds_maximum=0.1) as agent:
        await world.until(world.state_is(job_id, "starting", "running"))
        world.wire.is_down = True
        await world.until(world.spool_holds(agent, "gone"))
    world.wire.is_down = False

    async with world.running():
        job = await world.until(world.has_ended(job_id))

    assert (job["state"], job["attempt"], await world.log(job_id)) == ("succeeded", 1, "ran\n")


async def test_what_an_earlier_life_had_on_its_way_into_a_lease_is_deleted(world: World) -> None:
    left = world.settings.state_dir / "inputs" / "lea_old.tar.gz"
    os.makedirs(left.parent)
    left.touch()

    async with world.running():
        pass

    assert not (world.settings.state_dir / "inputs").exists()
