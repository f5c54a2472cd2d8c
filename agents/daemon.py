"""The node agent: pulls this node's leases, runs them, and reports what it sees.

Owns the life of the agent: start (one per state directory), the loops (assignments, reports, samples) and the stop. Does not own one lease
(lease_runs.py), sending (reporting.py) or measuring (telemetry.py). All connections go out. While the service is away leases go on and what
was seen waits in the spool. After a restart nothing of the boot before can be alive for long: a lease dies with its agent, what is left is
killed, and once its processes are proven gone it is reported lost. Called by the composition root.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import structlog

from agents import checkpoints
from agents import devices as device_values
from agents.device_selection import open_device_set
from agents.devices import Device, DeviceSample, DeviceSet
from agents.exporter import Exporter
from agents.link import Link, LinkDownError, LinkError
from agents.reporting import Backoff, Reporter
from agents.roster import Roster
from agents.sample_log import SampleLog
from agents.sandbox import machine, supervise
from agents.sandbox.spec import Isolation
from agents.settings import AgentSettings
from agents.spool import Spool, SpoolBusyError
from agents.surroundings import ProcessTree, Surroundings
from agents.telemetry import Telemetry
from domain.slices import DeviceHealth
from terrace.models.agents import DeviceReport, InventoryReport

# Threads for what may block: one lease that deletes a large directory must not keep another from being watched.
WORKERS = 32

log = structlog.get_logger()


class AgentError(Exception):
    """The agent cannot start; the message says what to change."""


async def run(settings: AgentSettings, stop: asyncio.Event) -> None:
    """Run this node's agent until `stop`.

    Raises before anything is sent: AgentError for a second agent on the state directory, SandboxError when leases cannot run here,
    NoDriverError without devices, SpoolError, PortUnavailableError.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _only_agent(settings.state_dir):
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="agent"))
        lease_settings = settings.sandbox
        runtime_path = str(settings.runtime_path) if settings.runtime_path else None
        await asyncio.to_thread(machine.job_environment, settings.job_python, runtime_path)
        uid = lease_settings.lease_uid_base if os.geteuid() == 0 else None
        isolation = await asyncio.to_thread(machine.isolation, settings.isolation, uid)
        warning = machine.trust_needed(
            isolation, is_asked_for=settings.isolation is Isolation.NONE, is_root=uid is not None, is_given=settings.is_everybody_trusted
        )
        if warning is not None:
            log.warning(warning)
        with contextlib.closing(open_device_set(settings.devices)) as device_set:
            agent = Agent(settings, device_set, make_tree=lambda: supervise.Sandbox(lease_settings), isolation=isolation.value)
            await agent.run(stop)


def _offered(device_set: DeviceSet) -> dict[str, Device]:
    """Return the devices that this node leases out. One in MIG mode computes nothing as a whole, so it is none of them."""
    offered = {}
    for device in device_set.inventory():
        if device.is_mig_enabled:
            log.error("a device is in MIG mode and is not offered: this agent leases whole devices", device=device.uuid, index=device.index)
        else:
            offered[device.uuid] = device
    return offered


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
            devices=_offered(device_set),
            make_tree=make_tree,
            now_ms=now_ms,
            wake=self._reporter.wake,
        )
        self._roster = Roster(self._around)
        self._health: dict[str, DeviceHealth] = {}
        self._pruned_ms: int | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then end every lease and say so."""
        exporter = self._serve_metrics()
        self._roster.end_earlier()
        loops = [asyncio.create_task(loop) for loop in (self._pull(), self._reporter.run(), self._sample())]
        stopped: asyncio.Future[Any] = asyncio.create_task(stop.wait())
        try:
            parts: list[asyncio.Future[None]] = [*loops, self._roster.failed]
            await asyncio.wait([*parts, stopped], return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()  # a part ends only by failing, which ends the agent: its supervisor starts it anew
        finally:
            stopped.cancel()
            loops[0].cancel()
            loops[2].cancel()
            await self._roster.stop_all(grace_ms=self.settings.stop_grace_ms, seconds_maximum=self.settings.stop_seconds_maximum)
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
        is_known = False
        while True:
            asked = cursor
            try:
                if not is_known:
                    await self._link.send_inventory(self._inventory())
                    self._health.clear()  # a device's health is told to a service that knows the device
                    is_known = True
                answer = await self._link.assignments(cursor)
                cursor = None  # until it was followed, the same answer is wanted again
                await self._roster.follow(answer.items)
            except (LinkError, SpoolBusyError) as error:
                is_known = is_known and not isinstance(error, LinkDownError)
                wait_seconds = backoff.failed()
                log.warning("assignments cannot be followed", error=str(error), next_try_seconds=wait_seconds)
                await asyncio.sleep(wait_seconds)
                continue
            backoff.succeeded()
            cursor = answer.cursor
            if cursor == asked:  # after a long poll it does not matter, and something in between may not wait
                await asyncio.sleep(self.settings.backoff_minimum_ms / 1_000)
            await self._prune({item.job_id for item in answer.items} | self._roster.job_ids)

    async def _prune(self, jobs: set[str]) -> None:
        now_ms = self._around.monotonic_ms()
        if self._pruned_ms is None or now_ms - self._pruned_ms >= self.settings.prune_every_ms:
            self._pruned_ms = now_ms
            await asyncio.to_thread(checkpoints.prune, self.settings, jobs=jobs, now_ms=self._around.now_ms())

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
            leases_alive=self._roster.lease_ids,
        )

    async def _sample(self) -> None:
        while True:
            snapshot = await asyncio.to_thread(self.telemetry.sample, self._around.now_ms())
            for sample in snapshot.samples:
                if sample.uuid not in self._around.devices:
                    continue  # the service does not know it
                try:
                    await self._tell_health(sample)
                except SpoolBusyError as error:  # the next round tells it
                    log.error("a device's health cannot be kept now", device=sample.uuid, error=str(error))
            await asyncio.sleep(self.settings.sample_ms / 1_000)

    async def _tell_health(self, sample: DeviceSample) -> None:
        """Report the health of a device when it changed, and once after every inventory: the service may remember another."""
        is_unproven = sample.uuid in self._around.unproven
        health = DeviceHealth.QUARANTINED if is_unproven else device_values.health(sample)
        if self._health.get(sample.uuid) is health:
            return
        detail = "not idle after its lease ended" if is_unproven else None
        if sample.fault is not None:
            detail = f"{sample.fault.code.value} {sample.fault.number}"
        data = {"device_uuid": sample.uuid, "health": health.value, "detail": detail}
        now_ms = self._around.now_ms()
        await asyncio.to_thread(lambda: self.spool.add("device_health", None, data, observed_at_ms=now_ms))
        self._health[sample.uuid] = health
        self._reporter.wake()
