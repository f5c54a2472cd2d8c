"""Telemetry of one node: which lease holds which slice, and what every slice and device was measured to use.

Owns: the lease table, the sampling round, the totals per slice and the snapshot that /metrics shows. Does not own: the
readings (a `DeviceSet`, processes.py), their storage (sample_log.py), the exposition (metrics.py) or the timer: the
agent calls `sample`. All calls but `snapshot` take a lock, so any thread may make them.

Totals start at 0 when a lease is bound, never decrease, and belong to that lease for ever: after its end they stay
visible, unchanged, for `LINGER_MS`, so that a scrape sees the final value of a lease that lived for seconds.
Example: half a device (500 milli-GPU) held for 2,000 ms at 300 permille is 1.0 GPU-second leased and 0.3 busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from agents import idleness, processes
from agents.devices import Device, DeviceError, DeviceSample, DeviceSet, SystemInfo, UnknownDeviceError
from agents.processes import ProcessTable, ProcessTree, ReadTable, TreeReading
from agents.sample_log import SampleLog, SampleLogError, SliceSample
from domain.slices import MILLI_GPU_PER_DEVICE

LOG_EVERY_MS = 15_000
# Two scrapes at the slowest interval that docs/metrics.md allows.
LINGER_MS = 120_000
# A longer silence is not integrated: what happened in it is unknown, and unknown use is not use.
GAP_MAX_MS = 60_000
OPEN_LEASES_MAX = 256
ENDED_LEASES_MAX = 256

_NOTHING = TreeReading(cpu_time_ms=0, memory_bytes=0, process_ids=())


class LeaseTableError(Exception):
    """A lease cannot be bound or is not bound; the message names the field and the limit."""


@dataclass(frozen=True, slots=True)
class LeasedSlice:
    """A slice of a device that a lease holds. `slice` is "whole", "shared" or a MIG profile at its cell, as "1g.18gb@3"."""

    device_uuid: str
    slice: str
    flavor: str
    milli_gpu: int


@dataclass(frozen=True, slots=True)
class SliceReading:
    """One held slice with its totals. `is_open` is false while it lingers after the end of its lease."""

    leased: LeasedSlice
    totals: SliceSample
    is_open: bool


@dataclass(frozen=True, slots=True)
class LeaseReading:
    """What the process tree of an open or lingering lease uses."""

    lease_id: str
    tree: TreeReading
    is_open: bool


@dataclass(frozen=True, slots=True)
class CollectorReport:
    """How the last round of one collector went. Having nothing to collect is success."""

    name: str
    duration_us: int
    is_success: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the last sampling round saw; immutable, so a scrape may read it while the next round runs."""

    node: str
    system: SystemInfo
    devices: tuple[Device, ...]
    sampled_at_ms: int | None = None
    samples: tuple[DeviceSample, ...] = ()
    slices: tuple[SliceReading, ...] = ()
    leases: tuple[LeaseReading, ...] = ()
    collectors: tuple[CollectorReport, ...] = ()
    gap_count: int = 0


@dataclass(slots=True)
class _Slice:
    leased: LeasedSlice
    leased_gpu_us: int = 0
    busy_gpu_ns: int | None = None
    energy_microjoule: int | None = None
    memory_used_bytes: int | None = None
    device_energy_millijoule: int | None = None


@dataclass(slots=True)
class _Lease:
    lease_id: str
    slices: tuple[_Slice, ...]
    tree: ProcessTree | None = None
    reading: TreeReading = _NOTHING
    ended_at_ms: int | None = None


class Telemetry:
    """The lease table of a node and its sampling. One per agent."""

    def __init__(
        self,
        devices: DeviceSet,
        *,
        node: str,
        log: SampleLog | None = None,
        read_table: ReadTable = processes.read_table,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Start with no lease. Without `log` nothing outlives the process. `clock_ns` measures durations only."""
        self._devices, self._node, self._log = devices, node, log
        self._read_table, self._clock_ns = read_table, clock_ns
        self._lock = threading.RLock()
        self._inventory = devices.inventory()
        self._system = devices.system()
        self._open: dict[str, _Lease] = {}
        self._ended: dict[str, _Lease] = {}
        self._samples: tuple[DeviceSample, ...] = ()
        self._sampled_at_ms: int | None = None
        self._logged_at_ms: int | None = None
        self._gap_count = 0
        self._snapshot = Snapshot(node=node, system=self._system, devices=self._inventory)

    def snapshot(self) -> Snapshot:
        """Return what the last round saw. Takes no lock and reads no device."""
        return self._snapshot

    def bind(self, lease_id: str, slices: Sequence[LeasedSlice], *, now_ms: int) -> None:
        """Enter a lease: its totals run from here.

        Binding a lease again changes nothing. Raises `LeaseTableError` for a slice that is twice the same, of no size or
        too many leases, `UnknownDeviceError` for a device of another node; then nothing is entered.
        """
        with self._lock:
            if lease_id in self._open:
                return
            self._check(slices)
            reports = self._sample(now_ms)  # the totals start from readings taken now, not from the last round's
            self._ended.pop(lease_id, None)
            samples = {sample.uuid: sample for sample in self._samples}
            entries = tuple(_begin(leased, samples.get(leased.device_uuid)) for leased in slices)
            self._open[lease_id] = _Lease(lease_id=lease_id, slices=entries)
            self._publish(now_ms, reports, is_log_due=True)

    def attach(self, lease_id: str, *, root_process_id: int) -> None:
        """Name the root of a bound lease's process tree. Raises `LeaseTableError` when there is no such lease or process."""
        with self._lock:
            if lease_id not in self._open:
                raise LeaseTableError(f"lease_id: {lease_id} is not bound on this node")
            row = self._read_table().get(root_process_id)
            if row is None:
                raise LeaseTableError(f"root_process_id: there is no process {root_process_id}")
            self._open[lease_id].tree = ProcessTree(row)

    def sample(self, now_ms: int) -> Snapshot:
        """Run one round: processes, then devices, then totals, then the log. Never raises for a device, process or log in trouble."""
        with self._lock:
            reports = self._sample(now_ms)
            self._publish(now_ms, reports, is_log_due=self._logged_at_ms is None or abs(now_ms - self._logged_at_ms) >= LOG_EVERY_MS)
            return self._snapshot

    def prove_idle(self, lease_id: str, *, now_ms: int) -> idleness.IdleProof:
        """Look now whether the lease's process tree is gone and nobody uses its devices. Raises `LeaseTableError` if it is not bound.

        A lease whose process tree was never attached is judged by its devices alone.
        """
        with self._lock:
            if lease_id not in self._open:
                raise LeaseTableError(f"lease_id: {lease_id} is not bound on this node")
            lease = self._open[lease_id]
            self._follow(lease, self._read_table(), now_ms)
            device_uuids = tuple(entry.leased.device_uuid for entry in lease.slices)
            return idleness.prove(self._devices, device_uuids, live_process_ids=lease.reading.process_ids)

    def prove_devices_idle(self, device_uuids: Sequence[str]) -> idleness.IdleProof:
        """Look now whether nobody uses these devices, for a lease that is not in the table because an earlier boot had it."""
        with self._lock:  # a device set is used by one thread at a time
            return idleness.prove(self._devices, device_uuids, live_process_ids=())

    def release(self, lease_id: str, *, now_ms: int) -> None:
        """End a lease: a last round closes its totals, which then linger. Releasing twice, or an unknown lease, changes nothing."""
        with self._lock:
            if lease_id not in self._open:
                return
            reports = self._sample(now_ms)
            lease = self._open.pop(lease_id)
            lease.ended_at_ms = now_ms
            self._devices.forget(lease_id)
            self._ended[lease_id] = lease
            while len(self._ended) > ENDED_LEASES_MAX:
                self._ended.pop(next(iter(self._ended)))
            self._publish(now_ms, reports, is_log_due=True)

    def _check(self, slices: Sequence[LeasedSlice]) -> None:
        if len(self._open) >= OPEN_LEASES_MAX:
            raise LeaseTableError(f"leases: this node already holds {OPEN_LEASES_MAX}, the limit (OPEN_LEASES_MAX)")
        known = {device.uuid for device in self._inventory}
        seen: set[tuple[str, str]] = set()
        for leased in slices:
            if leased.device_uuid not in known:
                raise UnknownDeviceError(leased.device_uuid)
            if not 0 < leased.milli_gpu <= MILLI_GPU_PER_DEVICE:
                raise LeaseTableError(f"milli_gpu: needs 1 to {MILLI_GPU_PER_DEVICE}, got {leased.milli_gpu}")
            if (leased.device_uuid, leased.slice) in seen:
                raise LeaseTableError(f"slices: {leased.slice} of {leased.device_uuid} is named twice; add up shared parts of one device")
            seen.add((leased.device_uuid, leased.slice))

    def _sample(self, now_ms: int) -> tuple[CollectorReport, ...]:
        """Take the readings and carry the totals forward; a collector that fails leaves its part as it was."""
        processes_report = self._timed("processes", lambda: self._follow_all(now_ms))
        devices_report = self._timed("devices", lambda: self._measure(now_ms))
        return processes_report, devices_report

    def _timed(self, name: str, collect: Callable[[], None]) -> CollectorReport:
        started_ns = self._clock_ns()
        is_success = True
        try:
            collect()
        except (DeviceError, psutil.Error, OSError, SampleLogError):
            is_success = False
        return CollectorReport(name=name, duration_us=(self._clock_ns() - started_ns) // 1000, is_success=is_success)

    def _follow_all(self, now_ms: int) -> None:
        if any(lease.tree is not None for lease in self._open.values()):
            table = self._read_table()
            for lease in self._open.values():
                self._follow(lease, table, now_ms)

    def _follow(self, lease: _Lease, table: ProcessTable, now_ms: int) -> None:
        if lease.tree is None:
            return
        lease.reading = lease.tree.update(table)
        self._devices.feed(
            tuple(entry.leased.device_uuid for entry in lease.slices),
            lease_id=lease.lease_id,
            cpu_time_ms=lease.reading.cpu_time_ms,
            memory_bytes=lease.reading.memory_bytes,
            process_ids=lease.reading.process_ids,
            now_ms=now_ms,
        )

    def _measure(self, now_ms: int) -> None:
        elapsed_ms = 0 if self._sampled_at_ms is None else max(0, now_ms - self._sampled_at_ms)
        if elapsed_ms > GAP_MAX_MS:
            self._gap_count += 1
            elapsed_ms = 0
        samples = self._devices.sample(now_ms)
        by_uuid = {sample.uuid: sample for sample in samples}
        for lease in self._open.values():
            for entry in lease.slices:
                _advance(entry, by_uuid.get(entry.leased.device_uuid), elapsed_ms)
        self._samples = samples
        self._sampled_at_ms = now_ms if self._sampled_at_ms is None else max(self._sampled_at_ms, now_ms)

    def _publish(self, now_ms: int, reports: tuple[CollectorReport, ...], *, is_log_due: bool) -> None:
        self._ended = {key: lease for key, lease in self._ended.items() if not _has_lingered(lease, now_ms)}
        leases = [*self._open.values(), *self._ended.values()]
        slices = tuple(self._reading(lease, entry, now_ms) for lease in leases for entry in lease.slices)
        kept = tuple(report for report in self._snapshot.collectors if report.name == "log")
        if is_log_due and self._log is not None:
            kept = (self._write_log(slices, now_ms),)
        self._snapshot = Snapshot(
            node=self._node,
            system=self._system,
            devices=self._inventory,
            sampled_at_ms=self._sampled_at_ms,
            samples=self._samples,
            slices=slices,
            leases=tuple(LeaseReading(lease.lease_id, lease.reading, lease.ended_at_ms is None) for lease in leases),
            collectors=(*(report for report in reports if report.name != "log"), *kept),
            gap_count=self._gap_count,
        )

    def _write_log(self, slices: tuple[SliceReading, ...], now_ms: int) -> CollectorReport:
        log = self._log
        just_ended = {lease.lease_id for lease in self._ended.values() if lease.ended_at_ms == now_ms}
        rows = [reading.totals for reading in slices if reading.is_open or reading.totals.lease_id in just_ended]
        self._logged_at_ms = now_ms
        return self._timed("log", lambda: log.append(rows, self._samples, now_ms=now_ms) if log is not None else None)

    def _reading(self, lease: _Lease, entry: _Slice, now_ms: int) -> SliceReading:
        totals = SliceSample(
            at_ms=now_ms if lease.ended_at_ms is None else lease.ended_at_ms,
            lease_id=lease.lease_id,
            device_uuid=entry.leased.device_uuid,
            slice=entry.leased.slice,
            is_simulated=self._devices.is_simulated,
            leased_gpu_us=entry.leased_gpu_us,
            busy_gpu_ns=entry.busy_gpu_ns,
            energy_microjoule=entry.energy_microjoule,
            memory_used_bytes=entry.memory_used_bytes,
        )
        return SliceReading(leased=entry.leased, totals=totals, is_open=lease.ended_at_ms is None)


def _begin(leased: LeasedSlice, sample: DeviceSample | None) -> _Slice:
    entry = _Slice(leased=leased)
    _advance(entry, sample, 0)
    return entry


def _advance(entry: _Slice, sample: DeviceSample | None, elapsed_ms: int) -> None:
    """Carry one slice's totals forward by a sample. A quantity that the device never reported stays None."""
    entry.leased_gpu_us += elapsed_ms * entry.leased.milli_gpu
    if sample is None:
        return
    if sample.utilisation_permille is not None:
        entry.busy_gpu_ns = (entry.busy_gpu_ns or 0) + elapsed_ms * entry.leased.milli_gpu * sample.utilisation_permille
    if sample.energy_millijoule is not None:
        before = entry.device_energy_millijoule
        # A counter that stands lower than before was reset with its driver: what it shows now was used since.
        used = (
            0 if before is None else sample.energy_millijoule - before if sample.energy_millijoule >= before else sample.energy_millijoule
        )
        entry.energy_microjoule = (entry.energy_microjoule or 0) + used * entry.leased.milli_gpu
        entry.device_energy_millijoule = sample.energy_millijoule
    entry.memory_used_bytes = sample.memory_used_bytes if entry.leased.milli_gpu == MILLI_GPU_PER_DEVICE else None


def _has_lingered(lease: _Lease, now_ms: int) -> bool:
    return lease.ended_at_ms is not None and now_ms - lease.ended_at_ms >= LINGER_MS
