"""What a node agent shows to Prometheus: one declarative table, read at the moment of the scrape.

Owns: names, labels, units and the table `METRICS`. docs/metrics.md is the contract with billing and a test compares the
two. Does not own: measuring (telemetry.py) or serving (exporter.py). Nothing is kept between scrapes: the series of a
lease are gone as soon as the snapshot no longer holds it. A value that is not known has no series; it is never 0.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agents import devices
from agents.devices import Device, DeviceSample
from agents.telemetry import CollectorReport, LeaseReading, SliceReading, Snapshot
from domain.slices import DeviceHealth

_MILLI = 1_000
_MICRO = 1_000_000
_NANO = 1_000_000_000

_AGENT_LABELS = ("node", "simulated")
_DEVICE_LABELS = ("node", "device", "flavor", "simulated")
_LEASE_LABELS = ("lease", "node", "simulated")
_SLICE_LABELS = ("lease", "node", "device", "slice", "flavor", "simulated")

Series = tuple[tuple[str, ...], float]


class Kind(StrEnum):
    """The two Prometheus types in use: a gauge may move freely, a counter only grows until its reset."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: `read` gives its series from a snapshot. `dcgm` names the DCGM field that means the same, where one does."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    read: Callable[[Snapshot], Iterable[Series]]
    dcgm: str | None = None


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _device_rows(value: Callable[[Device, DeviceSample], float | None]) -> Callable[[Snapshot], Iterator[Series]]:
    """Return a reader of one value per device; devices that do not report it have no series."""

    def read(snapshot: Snapshot) -> Iterator[Series]:
        known = {device.uuid: device for device in snapshot.devices}
        for sample in snapshot.samples:
            device = known.get(sample.uuid)
            number = None if device is None else value(device, sample)
            if device is not None and number is not None:
                yield (snapshot.node, device.uuid, device.model, _boolean(device.is_simulated)), number

    return read


def _slice_rows(value: Callable[[SliceReading], float | None], *, is_gauge: bool) -> Callable[[Snapshot], Iterator[Series]]:
    """Return a reader of one value per held slice. Gauges end with the lease; counters linger so that the last value is scraped."""

    def read(snapshot: Snapshot) -> Iterator[Series]:
        for reading in snapshot.slices:
            number = value(reading)
            if number is None or (is_gauge and not reading.is_open):
                continue
            totals = reading.totals
            simulated = _boolean(totals.is_simulated)
            yield (totals.lease_id, snapshot.node, totals.device_uuid, totals.slice, reading.leased.flavor, simulated), number

    return read


def _ecc(snapshot: Snapshot) -> Iterator[Series]:
    for labels, number in _device_rows(lambda _, sample: sample.ecc_corrected)(snapshot):
        yield (*labels, "corrected"), number
    for labels, number in _device_rows(lambda _, sample: sample.ecc_uncorrected)(snapshot):
        yield (*labels, "uncorrected"), number


def _lease_rows(value: Callable[[LeaseReading], float], *, is_gauge: bool) -> Callable[[Snapshot], Iterator[Series]]:
    def read(snapshot: Snapshot) -> Iterator[Series]:
        for lease in snapshot.leases:
            if lease.is_open or not is_gauge:
                yield (lease.lease_id, snapshot.node, _boolean(snapshot.system.is_simulated)), value(lease)

    return read


def _agent_rows(value: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Iterator[Series]]:
    def read(snapshot: Snapshot) -> Iterator[Series]:
        number = value(snapshot)
        if number is not None:
            yield (snapshot.node, _boolean(snapshot.system.is_simulated)), number

    return read


def _collector_rows(value: Callable[[CollectorReport], float]) -> Callable[[Snapshot], Iterator[Series]]:
    def read(snapshot: Snapshot) -> Iterator[Series]:
        for report in snapshot.collectors:
            yield (snapshot.node, _boolean(snapshot.system.is_simulated), report.name), value(report)

    return read


def _per(value: int | None, unit: int) -> float | None:
    return None if value is None else value / unit


METRICS: tuple[Row, ...] = (
    Row(
        "terrace_slice_leased_gpu_seconds_total",
        Kind.COUNTER,
        _SLICE_LABELS,
        "GPU-seconds during which the agent saw the lease hold the slice, weighted by the slice's size.",
        _slice_rows(lambda reading: reading.totals.leased_gpu_us / _MICRO, is_gauge=False),
    ),
    Row(
        "terrace_slice_busy_gpu_seconds_total",
        Kind.COUNTER,
        _SLICE_LABELS,
        "GPU-seconds of device utilisation while the lease held the slice, weighted by the slice's size.",
        _slice_rows(lambda reading: _per(reading.totals.busy_gpu_ns, _NANO), is_gauge=False),
        "DCGM_FI_DEV_GPU_UTIL",
    ),
    Row(
        "terrace_slice_energy_joules_total",
        Kind.COUNTER,
        _SLICE_LABELS,
        "Energy of the device while the lease held the slice, weighted by the slice's size.",
        _slice_rows(lambda reading: _per(reading.totals.energy_microjoule, _MICRO), is_gauge=False),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    ),
    Row(
        "terrace_slice_memory_used_bytes",
        Kind.GAUGE,
        _SLICE_LABELS,
        "Device memory in use by the holder of a whole device.",
        _slice_rows(lambda reading: reading.totals.memory_used_bytes, is_gauge=True),
        "DCGM_FI_DEV_FB_USED",
    ),
    Row(
        "terrace_slice_gpus",
        Kind.GAUGE,
        _SLICE_LABELS,
        "Size of the held slice in GPUs: 1 is a whole device. Join on node and device to find who holds a device.",
        _slice_rows(lambda reading: reading.leased.milli_gpu / _MILLI, is_gauge=True),
    ),
    Row(
        "terrace_lease_cpu_seconds_total",
        Kind.COUNTER,
        _LEASE_LABELS,
        "CPU time of the lease's process tree on this node, ended children included.",
        _lease_rows(lambda lease: lease.tree.cpu_time_ms / _MILLI, is_gauge=False),
    ),
    Row(
        "terrace_lease_resident_memory_bytes",
        Kind.GAUGE,
        _LEASE_LABELS,
        "Resident memory of the lease's process tree; pages shared by several processes count in each.",
        _lease_rows(lambda lease: lease.tree.memory_bytes, is_gauge=True),
    ),
    Row(
        "terrace_lease_processes",
        Kind.GAUGE,
        _LEASE_LABELS,
        "Live processes of the lease's tree.",
        _lease_rows(lambda lease: len(lease.tree.process_ids), is_gauge=True),
    ),
    Row(
        "terrace_device_utilisation_ratio",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Share of the last sampling period in which a kernel ran on the device.",
        _device_rows(lambda _, sample: _per(sample.utilisation_permille, _MILLI)),
        "DCGM_FI_DEV_GPU_UTIL",
    ),
    Row(
        "terrace_device_memory_used_bytes",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Device memory in use.",
        _device_rows(lambda _, sample: sample.memory_used_bytes),
        "DCGM_FI_DEV_FB_USED",
    ),
    Row(
        "terrace_device_memory_size_bytes",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Device memory in all.",
        _device_rows(lambda device, _: device.memory_bytes),
        "DCGM_FI_DEV_FB_TOTAL",
    ),
    Row(
        "terrace_device_power_watts",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Power draw.",
        _device_rows(lambda _, sample: _per(sample.power_milliwatt, _MILLI)),
        "DCGM_FI_DEV_POWER_USAGE",
    ),
    Row(
        "terrace_device_energy_joules_total",
        Kind.COUNTER,
        _DEVICE_LABELS,
        "Energy since the driver was loaded.",
        _device_rows(lambda _, sample: _per(sample.energy_millijoule, _MILLI)),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    ),
    Row(
        "terrace_device_temperature_celsius",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Temperature of the GPU.",
        _device_rows(lambda _, sample: sample.temperature_celsius),
        "DCGM_FI_DEV_GPU_TEMP",
    ),
    Row(
        "terrace_device_processes",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Processes that use the device.",
        _device_rows(lambda _, sample: None if sample.process_ids is None else len(sample.process_ids)),
    ),
    Row(
        "terrace_device_ecc_errors_total",
        Kind.COUNTER,
        (*_DEVICE_LABELS, "kind"),
        "ECC errors since the driver was loaded, by kind: corrected or uncorrected.",
        _ecc,
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL, DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    ),
    Row(
        "terrace_device_last_xid",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "Number of the last XID error since the agent started; no series before the first.",
        _device_rows(lambda _, sample: sample.last_xid),
        "DCGM_FI_DEV_XID_ERRORS",
    ),
    Row(
        "terrace_device_healthy",
        Kind.GAUGE,
        _DEVICE_LABELS,
        "1 while the device is healthy, 0 when it has a fault or cannot be read.",
        _device_rows(lambda _, sample: int(devices.health(sample) is DeviceHealth.HEALTHY)),
    ),
    Row(
        "terrace_agent_last_sample_timestamp_seconds",
        Kind.GAUGE,
        _AGENT_LABELS,
        "Unix time of the last sampling round; alert when it stands still.",
        _agent_rows(lambda snapshot: _per(snapshot.sampled_at_ms, _MILLI)),
    ),
    Row(
        "terrace_agent_sample_gaps_total",
        Kind.COUNTER,
        _AGENT_LABELS,
        "Silences between two rounds that were too long to be integrated.",
        _agent_rows(lambda snapshot: snapshot.gap_count),
    ),
    Row(
        "terrace_agent_collector_duration_seconds",
        Kind.GAUGE,
        (*_AGENT_LABELS, "collector"),
        "Duration of the collector's last round.",
        _collector_rows(lambda report: report.duration_us / _MICRO),
    ),
    Row(
        "terrace_agent_collector_success",
        Kind.GAUGE,
        (*_AGENT_LABELS, "collector"),
        "1 when the collector's last round succeeded; having nothing to collect is success.",
        _collector_rows(lambda report: int(report.is_success)),
    ),
)

BUILD_INFO = "terrace_agent_build_info"
BUILD_INFO_LABELS = (*_AGENT_LABELS, "version", "python", "driver", "nvml", "cuda")


class AgentCollector(Collector):
    """The Prometheus collector over a source of snapshots; register it once."""

    def __init__(self, source: Callable[[], Snapshot], *, version: str) -> None:
        """Show what `source` returns at each scrape; `version` is the agent's own."""
        self._source = source
        self._version = version

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering takes no reading."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the table from one snapshot, so that all values of a scrape belong together."""
        snapshot = self._source()
        for row in METRICS:
            text = row.help if row.dcgm is None else f"{row.help} DCGM: {row.dcgm}."
            family_of = CounterMetricFamily if row.kind is Kind.COUNTER else GaugeMetricFamily
            family = family_of(row.name, text, labels=row.labels)
            for labels, value in row.read(snapshot):
                family.add_metric(labels, value)
            yield family
        yield self._build_info(snapshot)

    def _build_info(self, snapshot: Snapshot) -> Metric:
        system = snapshot.system
        versions = (self._version, platform.python_version(), system.driver_version, system.nvml_version, system.cuda_version)
        family = GaugeMetricFamily(BUILD_INFO, "Always 1; the labels say what runs here.", labels=BUILD_INFO_LABELS)
        family.add_metric((snapshot.node, _boolean(system.is_simulated), *(version or "" for version in versions)), 1)
        return family
