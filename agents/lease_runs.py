"""One lease's part on this node, from its assignment to the proof that its devices are free.

Owns the order of things: archive fetched, process tree started, watched, stopped, proven gone, devices proven idle, reported. What is seen
goes to the spool and nowhere else. Does not own the process tree (sandbox/), the lease table (telemetry.py) or which leases there
are (roster.py, which wrote the lease down before). A lease that fails before it has a process ends as any other: exited, then gone.

While the disk is full, output and progress are lost (with a note); the beginning and the end of a lease and the word of its newest
checkpoint wait in memory, and a lease that is over gives its own directory back first.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import structlog

from agents import checkpoints, shares
from agents.devices import DeviceError
from agents.link import ArchiveDamagedError, LinkDownError, LinkRefusedError
from agents.release import report_when_idle
from agents.reporting import Backoff
from agents.sandbox.launch import LEASE_ID
from agents.sandbox.spec import EventKind, LeaseSpec, SandboxError, SandboxEvent
from agents.settings import AgentSettings
from agents.shares import Machine
from agents.spool import DROPPED_NOTE, SpoolBusyError
from agents.surroundings import ProcessTree, Surroundings
from agents.telemetry import LeasedSlice, LeaseTableError
from terrace.models.agents import Assignment
from terrace.runtime import progress

MESSAGE_CHARACTERS_MAXIMUM = 2_000
OUTPUT_CHARACTERS_MAXIMUM = 16_384  # of one report; at four bytes a character this is what the service takes at once
DAMAGED_ARCHIVES_MAXIMUM = 3
LOSSLESS = frozenset({EventKind.STARTED, EventKind.EXITED, EventKind.GONE})

log = structlog.get_logger()


class NotStartableError(Exception):
    """This node cannot make the lease run; `failure_class` says whose fault it is, `was_stopped` that a stop came first."""

    def __init__(self, failure_class: str, message: str, *, was_stopped: bool = False) -> None:
        super().__init__(message)
        self.failure_class, self.was_stopped = failure_class, was_stopped


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
        self._is_output_missing = False
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
            words = str(error)[:MESSAGE_CHARACTERS_MAXIMUM]
            data = {"exit_code": None, "failure_class": error.failure_class, "message": words, "was_stopped": error.was_stopped}
            kind, told = self._ending(data)
            await self._around.report(kind, self.lease_id, told)
        else:
            await self._watch()
        devices = [item.device_uuid for item in self.assignment.slices]
        if self._tree is None:  # nothing ran, so of a device that is not here there is nothing to prove
            devices = [device_uuid for device_uuid in devices if device_uuid in self._around.devices]
        await report_when_idle(self.lease_id, devices, self._around)
        await asyncio.to_thread(self._tidy)

    async def _start(self) -> None:
        asked = self.assignment
        if asked.role != "head":
            raise NotStartableError("platform", "this agent runs whole leases only; a gang over several machines needs a newer one")
        if not LEASE_ID.fullmatch(asked.lease_id) or not LEASE_ID.fullmatch(asked.job_id):
            raise NotStartableError("platform", "lease_id, job_id: name folders, so letters, digits, '_', '.' and '-' only, at most 63")
        await asyncio.to_thread(self._bind)
        try:
            spec = await self._prepare()
            if self._stop_grace_ms is not None:
                raise NotStartableError("platform", "stopped before it was started", was_stopped=True)
            tree = self._around.make_tree()
            handle = await asyncio.to_thread(tree.start, spec)
        except SandboxError as error:
            raise NotStartableError(error.failure_class.value, str(error)) from error
        except OSError as error:
            raise NotStartableError("platform", str(error)) from error
        finally:
            self._remove_inputs()
        self._tree = tree
        with contextlib.suppress(LeaseTableError):  # it ended already; the watch will say so
            await asyncio.to_thread(self._around.telemetry.attach, self.lease_id, root_process_id=handle.pid)
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
            checkpoint_dir=str(checkpoints.directory(settings, asked.job_id)),
            token=asked.token,
            limit_ms=asked.limit_ms,
            grace_ms=asked.grace_ms,
            start_timeout_ms=settings.start_timeout_ms,
            hidden_device_paths=self._other_devices(),
        )

    def _other_devices(self) -> tuple[str, ...]:
        """Return the device nodes of the machine that are not the lease's: naming devices in a variable keeps nobody out of the others."""
        mine = {item.device_uuid for item in self.assignment.slices}
        everything = self._around.telemetry.snapshot().devices  # those that this node does not offer too
        return tuple(device.node_path for device in everything if device.node_path and device.uuid not in mine)

    async def _fetch(self, target: Path, sha256: str) -> None:
        """Have the archive here. Whatever may pass is tried again until `archive_seconds` are over, before the scheduler's patience is."""
        seconds = self._around.settings.archive_seconds
        last: list[LinkDownError] = []
        try:
            async with asyncio.timeout(seconds):
                await self._try_to_fetch(target, sha256, last)
        except TimeoutError as error:
            words = str(last[-1]) if last else "the download was under way"
            raise NotStartableError("platform", f"archive: not here after archive_seconds = {seconds:g}: {words}") from error

    async def _try_to_fetch(self, target: Path, sha256: str, last: list[LinkDownError]) -> None:
        settings = self._around.settings
        backoff = Backoff(settings.backoff_minimum_ms, settings.backoff_maximum_ms)
        damaged = 0
        while self._stop_grace_ms is None:
            try:
                await self._around.link.fetch_archive(self.assignment.tenant_id, sha256, target)
                return
            except LinkRefusedError as error:
                raise NotStartableError("platform", f"archive: {error}") from error
            except LinkDownError as error:
                last[:] = [error]
                damaged += isinstance(error, ArchiveDamagedError)
                if damaged >= DAMAGED_ARCHIVES_MAXIMUM:
                    raise NotStartableError("platform", f"archive: damaged {damaged} times: {error}") from error
                log.warning("an archive is not to be had yet", lease=self.lease_id, error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.failed()):
                        await self._stop_asked.wait()
        raise NotStartableError("platform", "stopped before its archive was here", was_stopped=True)

    async def _watch(self) -> None:
        assert self._tree is not None  # noqa: S101  # _start made it
        waiting: list[SandboxEvent] = []
        while True:
            waiting += await asyncio.to_thread(self._tree.poll)
            is_gone = bool(waiting) and waiting[-1].kind is EventKind.GONE
            try:
                if waiting:
                    await asyncio.to_thread(self._keep, waiting)
                    waiting.clear()
                    self._around.wake()
            except SpoolBusyError as error:
                log.error("what was seen of a lease cannot be kept now", lease=self.lease_id, error=str(error))
                self._is_output_missing = self._is_output_missing or any(event.kind is EventKind.LOG for event in waiting)
                waiting = _indispensable(waiting)
                if is_gone:
                    await asyncio.to_thread(self._tidy)
            if is_gone and not waiting:
                return
            await asyncio.sleep(self._around.settings.watch_ms / 1_000)

    def _keep(self, events: list[SandboxEvent]) -> None:
        """Write down what happened, all of it or, with SpoolBusyError, nothing."""
        around, output_bytes, is_output_missing = self._around, self._output_bytes, self._is_output_missing
        with around.spool.together():
            for event in events:
                if event.kind is EventKind.LOG:
                    text = DROPPED_NOTE + event.data["text"] if is_output_missing else event.data["text"]
                    is_output_missing = False
                    output_bytes = self._keep_output(text, output_bytes, event.at_ms)
                elif event.kind is EventKind.EXITED:
                    kind, told = self._ending(event.data)
                    around.spool.add(kind, self.lease_id, told, observed_at_ms=event.at_ms)
                elif event.kind in (EventKind.STARTED, EventKind.PROGRESS):
                    around.spool.add(event.kind.value, self.lease_id, event.data, observed_at_ms=event.at_ms)
                elif event.kind is not EventKind.GONE:
                    log.info("lease", lease=self.lease_id, kind=event.kind.value, **event.data)
        self._output_bytes, self._is_output_missing = output_bytes, is_output_missing

    def _keep_output(self, text: str, offset: int, at_ms: int) -> int:
        """Keep output in pieces; return the offset after it. Offsets are of the text as it is kept: what was no UTF-8 grew on its way."""
        for first in range(0, len(text), OUTPUT_CHARACTERS_MAXIMUM):
            piece = text[first : first + OUTPUT_CHARACTERS_MAXIMUM]
            offset = self._around.spool.add_output(self.lease_id, offset, piece, observed_at_ms=at_ms)
        return offset

    def _ending(self, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return (kind, data) of the report of the end. One that the agent's own stop brought about is a loss: the job runs again."""
        self._has_exited = True
        if self._is_ours_to_blame and data["was_stopped"]:
            return "lost", {"message": "the node's agent was stopped"}
        return "exited", {name: data[name] for name in ("exit_code", "failure_class", "message", "was_stopped")}

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


def _indispensable(events: list[SandboxEvent]) -> list[SandboxEvent]:
    """Return what must be told whenever the disk allows: the beginning, the end, and the newest word of a checkpoint."""
    saved = [event for event in events if event.kind is EventKind.PROGRESS and progress.is_checkpoint(event.data)]
    return [event for event in events if event.kind in LOSSLESS or event in saved[-1:]]


def inputs_dir(settings: AgentSettings) -> Path:
    """Return the folder for archives and requirements on their way into a lease."""
    return settings.state_dir / "inputs"
