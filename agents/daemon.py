"""The node agent: pulls this node's leases, runs them, and reports what it sees.

Owns the life of the agent: start (one per state directory), the loops (assignments, reports, samples) and the stop. Does not own one lease
(lease_runs.py), sending (reporting.py) or measuring (telemetry.py). All connections go out. While the service is away leases go on and what
was seen waits in the spool. After a restart nothing of the boot before can be alive for long: a lease dies with its agent, what is left is
killed, and once its processes are proven gone it is reported lost. Called by the composition root.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import structlog

from agents import devices as device_values
from agents.device_selection import open_device_set
from agents.devices import DeviceSet
from agents.exporter import Exporter
from agents.lease_runs import LeaseRun, ProcessTree, Surroundings, report_when_idle
from agents.link import Link, LinkDownError, LinkError
from agents.reporting import Backoff, Reporter
from agents.sample_log import SampleLog
from agents.sandbox import handles, machine, supervise
from agents.sandbox.spec import SandboxHandle, SandboxSettings
from agents.settings import AgentSettings
from agents.spool import LeaseMemory, Spool
from agents.telemetry import Telemetry
from domain.slices import DeviceHealth
from terrace.models.agents import Assignment, DeviceReport, InventoryReport

KILL_EVERY_SECONDS = 0.2

log = structlog.get_logger()


class AgentError(Exception):
    """The agent cannot start; the message says what to change."""


def sandbox_settings(settings: AgentSettings) -> SandboxSettings:
    """Return how leases run on this machine."""
    return SandboxSettings(
        state_dir=settings.state_dir,
        isolation=settings.isolation,
        runtime_path=settings.runtime_path,
        hidden_paths=settings.hidden_paths,
    )


async def run(settings: AgentSettings, stop: asyncio.Event) -> None:
    """Run this node's agent until `stop`.

    Raises before anything is sent: AgentError for a second agent on the state directory, SandboxError when leases cannot run here,
    NoDriverError without devices, SpoolError, PortUnavailableError.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_agent(settings.state_dir):
        lease_settings = sandbox_settings(settings)
        runtime_path = str(settings.runtime_path) if settings.runtime_path else None
        await asyncio.to_thread(machine.job_environment, settings.job_python, runtime_path)
        uid = lease_settings.lease_uid_base if os.geteuid() == 0 else None
        isolation = await asyncio.to_thread(machine.isolation, settings.isolation, uid)
        with contextlib.closing(open_device_set(settings.devices)) as device_set:
            agent = Agent(settings, device_set, make_tree=lambda: supervise.Sandbox(lease_settings), isolation=isolation.value)
            await agent.run(stop)


@contextlib.contextmanager
def _only_agent(state_dir: Path) -> Iterator[None]:
    with (state_dir / "agent.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AgentError(f"state_dir: another agent works in {state_dir}") from error
        yield


class Agent:
    """One boot of the agent. `make_tree` and `transport` are seams for tests; `run` once."""

    def __init__(
        self,
        settings: AgentSettings,
        device_set: DeviceSet,
        *,
        make_tree: Callable[[], ProcessTree],
        isolation: str,
        transport: httpx.AsyncBaseTransport | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.settings, self._isolation = settings, isolation
        self.boot_id = uuid.uuid4().hex
        self.spool = Spool(settings.state_dir / "spool.db", boot_id=self.boot_id, bytes_maximum=settings.spool_bytes_maximum)
        sample_log = SampleLog(settings.state_dir / "samples.db")
        self.telemetry = Telemetry(device_set, node=settings.devices.node_name, log=sample_log)
        self._link = Link(settings, transport=transport)
        self._reporter = Reporter(self._link, self.spool, settings, boot_id=self.boot_id)
        self._around = Surroundings(
            settings=settings,
            link=self._link,
            spool=self.spool,
            telemetry=self.telemetry,
            device_set=device_set,
            devices={device.uuid: device for device in device_set.inventory()},
            make_tree=make_tree,
            now_ms=now_ms,
            wake=self._reporter.wake,
        )
        self._runs: dict[str, LeaseRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retold: set[str] = set()
        self._health: dict[str, DeviceHealth] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then end every lease and say so."""
        exporter = self._serve_metrics()
        self._end_earlier_leases()
        loops = [asyncio.create_task(loop) for loop in (self._pull(), self._reporter.run(), self._sample())]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*loops, stopped], return_when=asyncio.FIRST_COMPLETED)
            for loop in loops:
                if loop.done():
                    loop.result()  # a loop ends only by failing, which ends the agent: its supervisor starts it anew
        finally:
            stopped.cancel()
            loops[0].cancel()
            loops[2].cancel()
            await self._end_leases()
            loops[1].cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._reporter.flush(self.settings.flush_seconds_maximum)
            await self._link.close()
            self.spool.close()
            if exporter is not None:
                await asyncio.to_thread(exporter.close)

    def _serve_metrics(self) -> Exporter | None:
        if self.settings.metrics_port is None:
            return None
        return Exporter(self.telemetry.snapshot, version=self.settings.agent_version, port=self.settings.metrics_port)

    async def _pull(self) -> None:
        """Follow the node's assignments; after every silence of the service say again what this node has."""
        backoff = Backoff(self.settings.backoff_minimum_ms, self.settings.backoff_maximum_ms)
        cursor: str | None = None
        is_known = is_pruned = False
        while True:
            try:
                if not is_known:
                    await self._link.send_inventory(self._inventory())
                    is_known = True
                answer = await self._link.assignments(cursor)
            except LinkError as error:
                is_known = is_known and not isinstance(error, LinkDownError)
                wait_seconds = backoff.failed()
                log.warning("the service gives no assignments", error=str(error), next_try_seconds=wait_seconds)
                await asyncio.sleep(wait_seconds)
                continue
            backoff.succeeded()
            cursor = answer.cursor
            self.follow(answer.items)
            if not is_pruned:
                is_pruned = True
                await asyncio.to_thread(self._prune_checkpoints, {item.job_id for item in answer.items})

    def _inventory(self) -> InventoryReport:
        return InventoryReport(
            boot_id=self.boot_id,
            agent_version=self.settings.agent_version,
            cpu_milli=self.settings.machine_cpu_milli,
            memory_bytes=self.settings.machine_memory_bytes,
            isolation=self._isolation,
            devices=[
                DeviceReport(
                    uuid=device.uuid,
                    device_index=device.index,
                    gpu_model=device.model,
                    memory_bytes=device.memory_bytes,
                    cells=device.mig.memory_slices if device.mig else 1,
                    is_simulated=device.is_simulated,
                )
                for device in self._around.devices.values()
            ],
            leases_alive=sorted(self._runs),
        )

    def follow(self, assignments: Sequence[Assignment]) -> None:
        """Do what the newest assignments ask: start what is new, stop what shall stop or is not named any more."""
        named = {item.lease_id: item for item in assignments}
        for item in assignments:
            if item.lease_id in self._runs:
                if item.target == "stop":
                    self._runs[item.lease_id].stop(item.grace_ms)
            else:
                self._begin(item)
        for lease_id, lease_run in self._runs.items():
            if lease_id not in named:
                lease_run.stop(lease_run.assignment.grace_ms)
        self.spool.forget_leases_but(set(named))

    def _begin(self, item: Assignment) -> None:
        memory, _ = self.spool.memory_of(item.lease_id)
        if memory is LeaseMemory.UNKNOWN:
            self.spool.take(item.lease_id, [part.device_uuid for part in item.slices])
            lease_run = self._runs[item.lease_id] = LeaseRun(item, self._around)
            if item.target == "stop":
                lease_run.stop(item.grace_ms)
            self._tasks[item.lease_id] = asyncio.create_task(self._run_lease(lease_run))
        elif memory is LeaseMemory.GONE and item.lease_id not in self._retold:
            self._retold.add(item.lease_id)  # the report of it may have been lost with the service's database; once per boot is enough
            self.spool.report_gone(item.lease_id, observed_at_ms=self._around.now_ms())
            self._reporter.wake()

    async def _run_lease(self, lease_run: LeaseRun) -> None:
        lease_id = lease_run.lease_id
        try:
            await lease_run.run()
        except Exception:
            log.exception("a lease's supervision failed; its processes are killed", lease=lease_id)
            await self._end_lost(lease_id, [item.device_uuid for item in lease_run.assignment.slices], "its supervision failed")
        finally:
            self._runs.pop(lease_id, None)
            self._tasks.pop(lease_id, None)

    def _end_earlier_leases(self) -> None:
        """Start killing and proving gone whatever boots before this one have left."""
        earlier = self.spool.taken_before()
        for handle in handles.leftovers(sandbox_settings(self.settings)):
            earlier.setdefault(handle.lease_id, ())
        for lease_id, device_uuids in earlier.items():
            told = "the node's agent was restarted and its leases ended with it"
            self._tasks[lease_id] = asyncio.create_task(self._end_lost(lease_id, device_uuids, told))

    async def _end_lost(self, lease_id: str, device_uuids: Sequence[str], message: str) -> None:
        handle = self._handle_of(lease_id)
        while handle is not None and not await asyncio.to_thread(supervise.end_leftover, handle):  # noqa: ASYNC110  # the kernel sets no event
            await asyncio.sleep(KILL_EVERY_SECONDS)
        if self.spool.memory_of(lease_id)[0] is not LeaseMemory.GONE:
            self._around.report("lost", lease_id, message=message)
            await report_when_idle(lease_id, device_uuids, self._around)
        if handle is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(supervise.discard, handle)

    def _handle_of(self, lease_id: str) -> SandboxHandle | None:
        left = handles.leftovers(sandbox_settings(self.settings))
        return next((handle for handle in left if handle.lease_id == lease_id), None)

    async def _sample(self) -> None:
        while True:
            snapshot = await asyncio.to_thread(self.telemetry.sample, self._around.now_ms())
            for sample in snapshot.samples:
                health = device_values.health(sample)
                before = self._health.get(sample.uuid, DeviceHealth.HEALTHY)
                self._health[sample.uuid] = health
                if health is not before:
                    detail = f"{sample.fault.code.value} {sample.fault.number}" if sample.fault else None
                    self._around.report("device_health", None, device_uuid=sample.uuid, health=health.value, detail=detail)
            await asyncio.sleep(self.settings.sample_ms / 1_000)

    async def _end_leases(self) -> None:
        for lease_run in self._runs.values():
            grace_ms = min(lease_run.assignment.grace_ms, self.settings.stop_grace_ms)
            lease_run.stop(grace_ms, because_agent_stops=True)
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.settings.stop_seconds_maximum)
            for task in late:  # the spool knows these leases: the next boot proves them gone
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _prune_checkpoints(self, jobs: set[str]) -> None:
        folder = self.settings.state_dir / "checkpoints"
        if not folder.is_dir():
            return
        for entry in os.scandir(folder):
            age_ms = self._around.now_ms() - entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
            if entry.name not in jobs and age_ms > self.settings.checkpoints_kept_ms:
                shutil.rmtree(entry.path, ignore_errors=True)
