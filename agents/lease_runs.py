"""One lease's part on this node, from its assignment to the proof that its devices are free.

Owns the order of things: archive fetched, process tree started, watched, stopped, proven gone, devices proven idle, reported. What is seen
goes to the spool and nowhere else. Does not own the process tree (sandbox/), the lease table (telemetry.py) or which leases there
are (daemon.py, which wrote the lease down before). A lease that fails before it has a process ends as any other: exited, then gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from agents import idleness, shares
from agents.devices import Device, DeviceError, DeviceSet
from agents.link import Link, LinkDownError, LinkRefusedError
from agents.reporting import Backoff
from agents.sandbox.spec import EventKind, LeaseSpec, SandboxError, SandboxEvent, SandboxHandle
from agents.settings import AgentSettings
from agents.shares import Machine
from agents.spool import Spool
from agents.telemetry import LeasedSlice, LeaseTableError, Telemetry
from domain.slices import DeviceHealth
from terrace.models.agents import Assignment

MESSAGE_CHARACTERS_MAXIMUM = 2_000
OUTPUT_CHARACTERS_MAXIMUM = 16_384  # of one report; at four bytes a character this is what the service takes at once

log = structlog.get_logger()


class ProcessTree(Protocol):
    """What runs a lease: `agents.sandbox.supervise.Sandbox`, or a stand-in for tests."""

    def start(self, spec: LeaseSpec, /) -> SandboxHandle:
        """Start and return at once; SandboxError when this machine cannot."""

    def poll(self) -> list[SandboxEvent]:
        """Return what happened since the last call; the last event ever is GONE."""

    def stop(self, grace_ms: int, /) -> None:
        """Give notice now and kill after `grace_ms`."""

    def kill(self) -> None:
        """Kill the whole tree now."""

    def discard(self) -> None:
        """Delete the lease's directory, after GONE."""


@dataclass(slots=True)
class Surroundings:
    """What all leases of an agent share."""

    settings: AgentSettings
    link: Link
    spool: Spool
    telemetry: Telemetry
    device_set: DeviceSet
    devices: Mapping[str, Device]
    make_tree: Callable[[], ProcessTree]
    now_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000)
    wake: Callable[[], None] = field(default=lambda: None)

    def report(self, kind: str, lease_id: str | None, **data: Any) -> None:
        """Keep a report and have it sent."""
        self.spool.add(kind, lease_id, data, observed_at_ms=self.now_ms())
        self.wake()


class NotStartableError(Exception):
    """This node cannot make the lease run; `failure_class` says whose fault it is."""

    def __init__(self, failure_class: str, message: str) -> None:
        super().__init__(message)
        self.failure_class = failure_class


class LeaseRun:
    """A lease that this boot of the agent took on. Its spool entry was made before."""

    def __init__(self, assignment: Assignment, around: Surroundings) -> None:
        self.assignment = assignment
        self._around = around
        self._tree: ProcessTree | None = None
        self._stop_grace_ms: int | None = None
        self._stop_asked = asyncio.Event()
        self._is_ours_to_blame = False
        self._has_exited = False
        self._output_bytes = 0

    @property
    def lease_id(self) -> str:
        """The lease."""
        return self.assignment.lease_id

    def stop(self, grace_ms: int, *, because_agent_stops: bool = False) -> None:
        """End the lease. When the agent itself stops, the end is reported as lost, so that the job runs again."""
        if self._stop_grace_ms is not None:
            return
        self._stop_grace_ms = grace_ms
        self._is_ours_to_blame = because_agent_stops and not self._has_exited
        self._stop_asked.set()
        if self._tree is not None:
            self._tree.stop(grace_ms)

    async def run(self) -> None:
        """Bring the lease to its end. Returns when it is reported gone."""
        try:
            await self._start()
        except NotStartableError as error:
            self._report_exit({"exit_code": None, "failure_class": error.failure_class, "message": str(error)})
        else:
            await self._watch()
        await report_when_idle(self.lease_id, [item.device_uuid for item in self.assignment.slices], self._around)
        await asyncio.to_thread(self._tidy)

    async def _start(self) -> None:
        asked = self.assignment
        if asked.role != "head":
            raise NotStartableError("platform", "this agent runs whole leases only; a gang over several machines needs a newer one")
        await asyncio.to_thread(self._bind)
        try:
            spec = await self._prepare()
            if self._stop_grace_ms is not None:
                raise NotStartableError("platform", "stopped before it was started")
            tree = self._around.make_tree()
            handle = await asyncio.to_thread(tree.start, spec)
        except (SandboxError, OSError) as error:
            raise NotStartableError("platform", f"{error}"[:MESSAGE_CHARACTERS_MAXIMUM]) from error
        finally:
            self._remove_inputs()
        self._tree = tree
        with contextlib.suppress(LeaseTableError):  # it ended already; the watch will say so
            self._around.telemetry.attach(self.lease_id, root_process_id=handle.pid)
        if self._stop_grace_ms is not None:
            tree.stop(self._stop_grace_ms)

    def _bind(self) -> None:
        slices = []
        for item in self.assignment.slices:
            device = self._around.devices.get(item.device_uuid)
            if device is None:
                raise NotStartableError("node", f"device {item.device_uuid} is not on this node")
            slices.append(LeasedSlice(item.device_uuid, "whole", device.model, item.milli_gpu))
        try:
            self._around.telemetry.bind(self.lease_id, slices, now_ms=self._around.now_ms())
        except (LeaseTableError, DeviceError) as error:
            raise NotStartableError("node", str(error)) from error

    async def _prepare(self) -> LeaseSpec:
        asked, settings = self.assignment, self._around.settings
        machine = Machine(settings.machine_cpu_milli, settings.machine_memory_bytes, len(self._around.devices))
        folder = inputs_dir(settings)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        archive = requirements = None
        if asked.archive_sha256 is not None:
            archive = folder / f"{asked.lease_id}.tar.gz"
            await self._fetch(archive, asked.archive_sha256)
        if asked.requirements is not None:
            requirements = folder / f"{asked.lease_id}.txt"
            requirements.write_text(asked.requirements)
        return LeaseSpec(
            lease_id=asked.lease_id,
            job_id=asked.job_id,
            attempt=asked.attempt,
            node_name=settings.devices.node_name,
            device_uuids=tuple(item.device_uuid for item in asked.slices),
            device_indices=tuple(item.device_index for item in asked.slices),
            is_simulated=any(device.is_simulated for device in self._around.devices.values()),
            cpu_milli=shares.cpu_milli(asked, machine),
            memory_bytes=shares.memory_bytes(asked, machine),
            replicas=asked.replicas,
            gpus_per_replica_milli_gpu=asked.gpus_per_replica * 1_000,
            entrypoint=tuple(asked.entrypoint),
            env=dict(asked.environment),
            archive_path=str(archive) if archive else None,
            requirements_path=str(requirements) if requirements else None,
            job_python=settings.job_python,
            checkpoint_dir=str(checkpoint_dir(settings, asked.job_id)),
            token=asked.token,
            limit_ms=asked.limit_ms,
            grace_ms=asked.grace_ms,
            start_timeout_ms=settings.start_timeout_ms,
        )

    async def _fetch(self, target: Path, sha256: str) -> None:
        settings = self._around.settings
        backoff = Backoff(settings.backoff_minimum_ms, settings.backoff_maximum_ms)
        while self._stop_grace_ms is None:
            try:
                await self._around.link.fetch_archive(self.assignment.tenant_id, sha256, target)
                return
            except LinkRefusedError as error:
                raise NotStartableError("platform", f"archive: {error}"[:MESSAGE_CHARACTERS_MAXIMUM]) from error
            except LinkDownError as error:
                log.warning("an archive is not to be had yet", lease=self.lease_id, error=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop_asked.wait(), backoff.failed())
        raise NotStartableError("platform", "stopped before its archive was here")

    async def _watch(self) -> None:
        assert self._tree is not None  # noqa: S101  # _start made it
        while True:
            for event in await asyncio.to_thread(self._tree.poll):
                if event.kind is EventKind.GONE:
                    return
                self._take(event)
            await asyncio.sleep(self._around.settings.watch_ms / 1_000)

    def _take(self, event: SandboxEvent) -> None:
        around = self._around
        if event.kind is EventKind.LOG:
            # Offsets of the text as it is kept: what was no UTF-8 became longer on its way here.
            text = str(event.data["text"])
            for first in range(0, len(text), OUTPUT_CHARACTERS_MAXIMUM):
                piece = text[first : first + OUTPUT_CHARACTERS_MAXIMUM]
                self._output_bytes = around.spool.add_output(self.lease_id, self._output_bytes, piece, observed_at_ms=event.at_ms)
            around.wake()
        elif event.kind is EventKind.EXITED:
            self._report_exit(event.data, at_ms=event.at_ms)
        elif event.kind in (EventKind.STARTED, EventKind.PROGRESS):
            around.spool.add(event.kind.value, self.lease_id, event.data, observed_at_ms=event.at_ms)
            around.wake()
        else:
            log.info("lease", lease=self.lease_id, kind=event.kind.value, **event.data)

    def _report_exit(self, data: dict[str, Any], *, at_ms: int | None = None) -> None:
        self._has_exited = True
        kind, told = ("lost", {"message": "the node's agent was stopped"}) if self._is_ours_to_blame else ("exited", data)
        self._around.spool.add(kind, self.lease_id, told, observed_at_ms=self._around.now_ms() if at_ms is None else at_ms)
        self._around.wake()

    def _remove_inputs(self) -> None:
        for path in inputs_dir(self._around.settings).glob(f"{self.lease_id}.*"):
            path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        if self._tree is None:
            return
        try:
            self._tree.discard()
        except (SandboxError, OSError) as error:
            log.warning("a lease's directory stays", lease=self.lease_id, error=str(error))


async def report_when_idle(lease_id: str, device_uuids: Sequence[str], around: Surroundings) -> None:
    """Report a lease whose processes are gone as gone, once nobody uses its devices. One that stays busy is reported and not free."""
    started_ms = around.now_ms()
    suspects: list[str] = []
    while not (proof := await asyncio.to_thread(_prove, lease_id, device_uuids, around)).is_idle:
        if not suspects and around.now_ms() - started_ms >= around.settings.suspect_after_ms:
            for obstacle in proof.obstacles:
                log.error("a device is not free", lease=lease_id, device=obstacle.device_uuid, reason=obstacle.reason.value)
            suspects = sorted({obstacle.device_uuid for obstacle in proof.obstacles if obstacle.device_uuid is not None})
            _report_health(around, suspects, DeviceHealth.QUARANTINED)
        await asyncio.sleep(around.settings.prove_every_ms / 1_000)
    _report_health(around, suspects, DeviceHealth.HEALTHY)
    await asyncio.to_thread(around.telemetry.release, lease_id, now_ms=around.now_ms())
    around.spool.report_gone(lease_id, observed_at_ms=around.now_ms())
    around.wake()


def _prove(lease_id: str, device_uuids: Sequence[str], around: Surroundings) -> idleness.IdleProof:
    try:
        return around.telemetry.prove_idle(lease_id, now_ms=around.now_ms())
    except LeaseTableError:  # it never got into the table, or an earlier boot of the agent had it there
        known = [device_uuid for device_uuid in device_uuids if device_uuid in around.devices]
        return idleness.prove(around.device_set, known, live_process_ids=())


def _report_health(around: Surroundings, device_uuids: Sequence[str], health: DeviceHealth) -> None:
    for device_uuid in device_uuids:
        around.report("device_health", None, device_uuid=device_uuid, health=health.value, detail="not idle after its lease ended")


def inputs_dir(settings: AgentSettings) -> Path:
    """Return the folder for archives and requirements on their way into a lease."""
    return settings.state_dir / "inputs"


def checkpoint_dir(settings: AgentSettings, job_id: str) -> Path:
    """Return the directory that every attempt of a job on this node gets."""
    return settings.state_dir / "checkpoints" / job_id
