"""The leases of this node: those that run, and those of earlier boots on their way to the proof that they are gone.

Owns: what becomes of the newest assignments, one task per lease, and the end of whatever an earlier boot of the agent left. Does not own:
one lease (lease_runs.py) or the connection (daemon.py). A task that fails beyond repair ends the agent (`failed`): its supervisor starts
it anew, and the next boot proves everything gone that this one cannot account for.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from agents.lease_runs import LeaseRun, inputs_dir
from agents.release import report_when_idle
from agents.sandbox import handles, supervise
from agents.sandbox.spec import SandboxHandle
from agents.spool import LeaseMemory, SpoolError
from agents.surroundings import Surroundings
from terrace.models.agents import Assignment

KILL_EVERY_SECONDS = 0.2
RESTARTED = "the node's agent was restarted and its leases ended with it"
FORGOTTEN = "the node's agent lost its memory of what it had started"

log = structlog.get_logger()


class Roster:
    """One task per lease. To be used on the event loop."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._runs: dict[str, LeaseRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told_gone_ms: dict[str, int] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def lease_ids(self) -> list[str]:
        """The leases that run, in order."""
        return sorted(self._runs)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way, one task per lease."""
        return list(self._tasks.values())

    @property
    def job_ids(self) -> set[str]:
        """The jobs of the leases that run."""
        return {lease_run.assignment.job_id for lease_run in self._runs.values()}

    def end_earlier(self) -> None:
        """Start killing and proving gone whatever boots before this one have left. What the spool does not know is nobody's any more."""
        shutil.rmtree(inputs_dir(self._around.settings), ignore_errors=True)
        earlier = self._around.spool.taken_before()
        for lease_id, device_uuids in earlier.items():
            self._spawn(lease_id, self._end_lost(lease_id, device_uuids, RESTARTED))
        for handle in handles.leftovers(self._around.settings.sandbox):
            if handle.lease_id not in earlier:
                self._spawn(handle.lease_id, self._clear_away(handle))

    async def follow(self, assignments: Sequence[Assignment]) -> None:
        """Do what the newest assignments ask: start what is new, stop what shall stop or is not named any more.

        SpoolBusyError when a lease cannot be written down; it is not started then, and following the same assignments again is right.
        """
        spool, named = self._around.spool, {item.lease_id: item for item in assignments}
        if await asyncio.to_thread(spool.has_lost_memory):
            devices = {item.lease_id: _devices(item) for item in assignments if item.lease_id not in self._runs}
            await asyncio.to_thread(spool.take_as_lost, devices)
            for lease_id, device_uuids in devices.items():
                self._spawn(lease_id, self._end_lost(lease_id, device_uuids, FORGOTTEN))
        for item in assignments:
            if item.lease_id not in self._runs:
                await self._begin(item)
            elif item.target == "stop":
                self._runs[item.lease_id].stop(item.grace_ms)
        for lease_id, lease_run in self._runs.items():
            if lease_id not in named:
                lease_run.stop(lease_run.assignment.grace_ms)
        await asyncio.to_thread(spool.forget_leases_but, set(named))
        self._told_gone_ms = {lease_id: told_ms for lease_id, told_ms in self._told_gone_ms.items() if lease_id in named}

    async def stop_all(self, *, grace_ms: int, seconds_maximum: float) -> None:
        """End every lease because the agent itself is stopped. What is not gone by then dies with the agent; the next boot says so."""
        for lease_run in self._runs.values():
            lease_run.stop(min(lease_run.assignment.grace_ms, grace_ms), because_agent_stops=True)
        if tasks := self.tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds_maximum)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _begin(self, item: Assignment) -> None:
        around, lease_id = self._around, item.lease_id
        memory, _ = await asyncio.to_thread(around.spool.memory_of, lease_id)
        if memory is LeaseMemory.UNKNOWN:
            await asyncio.to_thread(around.spool.take, lease_id, _devices(item))
            lease_run = self._runs[lease_id] = LeaseRun(item, around)
            if item.target == "stop":
                lease_run.stop(item.grace_ms)
            self._spawn(lease_id, self._run(lease_run))
        elif memory is LeaseMemory.GONE and self._is_to_be_told_again(lease_id):
            await asyncio.to_thread(around.spool.report_gone, lease_id, observed_at_ms=around.now_ms())
            self._told_gone_ms[lease_id] = around.monotonic_ms()
            around.wake()

    def _is_to_be_told_again(self, lease_id: str) -> bool:
        """True for a lease that is long gone and still assigned: the report of it was lost, with the service's database perhaps."""
        told_ms = self._told_gone_ms.get(lease_id)
        return told_ms is None or self._around.monotonic_ms() - told_ms >= self._around.settings.retell_after_ms

    async def _run(self, lease_run: LeaseRun) -> None:
        lease_id = lease_run.lease_id
        try:
            await lease_run.run()
        except SpoolError:
            raise
        except Exception:
            log.exception("a lease's supervision failed; its processes are killed", lease=lease_id)
            await self._end_lost(lease_id, _devices(lease_run.assignment), "its supervision failed")
        finally:
            self._told_gone_ms[lease_id] = self._around.monotonic_ms()
            self._runs.pop(lease_id, None)

    async def _end_lost(self, lease_id: str, device_uuids: Sequence[str], message: str) -> None:
        around = self._around
        left = await asyncio.to_thread(handles.leftovers, around.settings.sandbox)
        handle = next((handle for handle in left if handle.lease_id == lease_id), None)
        if handle is not None:
            await self._kill(handle)
        if (await asyncio.to_thread(around.spool.memory_of, lease_id))[0] is not LeaseMemory.GONE:
            await around.report("lost", lease_id, {"message": message})
            self._told_gone_ms[lease_id] = around.monotonic_ms()
            await report_when_idle(lease_id, device_uuids, around)
        if handle is not None:
            await self._discard(handle)

    async def _clear_away(self, handle: SandboxHandle) -> None:
        await self._kill(handle)
        await self._discard(handle)

    async def _kill(self, handle: SandboxHandle) -> None:
        started_ms, is_told = self._around.monotonic_ms(), False
        while not await asyncio.to_thread(supervise.end_leftover, handle):
            if not is_told and self._around.monotonic_ms() - started_ms >= self._around.settings.suspect_after_ms:
                is_told = True
                log.error("processes of a lease do not die", lease=handle.lease_id, pid=handle.pid)
            await asyncio.sleep(KILL_EVERY_SECONDS)

    async def _discard(self, handle: SandboxHandle) -> None:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(supervise.discard, handle)

    def _spawn(self, lease_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a lease's task; after the one that it has already, if any."""
        task = self._tasks[lease_id] = asyncio.create_task(_after(self._tasks.get(lease_id), work), name=f"lease-{lease_id}")
        task.add_done_callback(functools.partial(self._done, lease_id))

    def _done(self, lease_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(lease_id) is task:
            del self._tasks[lease_id]
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)


async def _after(earlier: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
    if earlier is not None:
        await asyncio.wait([earlier])
    await work


def _devices(item: Assignment) -> list[str]:
    return [part.device_uuid for part in item.slices]
