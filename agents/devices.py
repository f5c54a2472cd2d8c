"""What a node agent knows about devices: the small interface and its plain values.

Owns: the `DeviceSet` protocol, the inventory and sample values, device faults and the errors of opening a set.
Does not own: how a reading is taken (nvml.py, simulated.py), who holds a device (telemetry.py), when one is free
(idleness.py). Called by everything else in agents/. A reading that a device cannot give is None, never 0: an idle
device and a silent device are different things, and billing evidence must not mix them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from domain.slices import MILLI_GPU_PER_DEVICE, DeviceHealth

# More devices than any machine we know carries; bounds every per-device loop and the label cardinality of /metrics.
DEVICES_PER_NODE_MAX = 64

# XIDs that condemn the device until a person resets it: double-bit ECC, failed row remap, NVLink, fallen off the bus,
# uncontained ECC, the GSP and unrecovered ECC. All others (13, 31, 43, 45, 94, ...) are the application's or are contained.
FATAL_XIDS = frozenset({48, 64, 74, 79, 95, 119, 120, 140})

_VENDOR_WORDS = frozenset({"nvidia", "tesla", "geforce"})


class DeviceError(Exception):
    """Something about devices went wrong; the message names the device or the library."""


class UnknownDeviceError(DeviceError):
    """A device UUID that this node does not have."""

    def __init__(self, device_uuid: str) -> None:
        super().__init__(f"device_uuid: {device_uuid} is not a device of this node")
        self.device_uuid = device_uuid


class NoDriverReason(StrEnum):
    """Why NVML cannot be used here."""

    BINDINGS_MISSING = "bindings_missing"
    LIBRARY_MISSING = "library_missing"
    DRIVER_NOT_LOADED = "driver_not_loaded"
    VERSION_MISMATCH = "version_mismatch"
    NO_DEVICES = "no_devices"
    FAILED = "failed"


class NoDriverError(DeviceError):
    """No usable NVIDIA driver: `reason` says why, the message adds what NVML said."""

    def __init__(self, reason: NoDriverReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class FaultCode(StrEnum):
    """What is wrong with a device."""

    LOST = "lost"
    RESET_REQUIRED = "reset_required"
    XID = "xid"
    ECC = "ecc"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """A fault and its number: the XID, the count of uncorrected errors or the NVML error code."""

    code: FaultCode
    number: int


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One MIG profile: its size and the memory cells at which it may start."""

    name: str
    compute_slices: int
    memory_slices: int
    memory_bytes: int
    instances_max: int
    start_cells: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MigTable:
    """What a device model can be cut into; `memory_slices` is the number of memory cells of the whole device."""

    memory_slices: int
    profiles: tuple[MigProfile, ...]

    def milli_gpu(self, profile: MigProfile) -> int:
        """Return the size of `profile` in milli-GPU, by its share of the memory cells."""
        return MILLI_GPU_PER_DEVICE * profile.memory_slices // self.memory_slices


@dataclass(frozen=True, slots=True)
class Device:
    """One physical (or simulated) GPU of this node, as the inventory reports it; `mig` is None where MIG is not offered.

    `node_path` is its file below /dev, None where it has none or the driver does not tell: who can open that can use the device.
    """

    uuid: str
    index: int
    name: str
    model: str
    memory_bytes: int
    serial: str | None
    pci_bus_id: str | None
    node_path: str | None
    mig: MigTable | None
    is_mig_enabled: bool
    is_simulated: bool


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """What one device said at `at_ms`. None means that the device does not report this reading.

    `energy_millijoule` and the ECC counts are cumulative since the driver was loaded (for a simulated device: since
    the set was opened). `last_xid` is None until an XID was seen.
    """

    uuid: str
    at_ms: int
    utilisation_permille: int | None = None
    memory_used_bytes: int | None = None
    power_milliwatt: int | None = None
    energy_millijoule: int | None = None
    temperature_celsius: int | None = None
    process_ids: tuple[int, ...] | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    last_xid: int | None = None
    fault: DeviceFault | None = None


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """The driver behind a device set; versions are None for a simulated set."""

    driver_version: str | None
    nvml_version: str | None
    cuda_version: str | None
    is_simulated: bool


class DeviceSet(Protocol):
    """All devices of one node. Implementations are used by one thread at a time."""

    @property
    def is_simulated(self) -> bool:
        """Tell whether the devices are simulated; whoever shows them must say so."""

    def system(self) -> SystemInfo:
        """Return what drives the devices."""

    def inventory(self) -> tuple[Device, ...]:
        """Return the devices in index order, at most `DEVICES_PER_NODE_MAX`."""

    def sample(self, now_ms: int) -> tuple[DeviceSample, ...]:
        """Read every known device once. A device in trouble yields a sample with a fault; this never raises for one."""

    def process_ids(self, device_uuid: str) -> tuple[int, ...] | None:
        """Return the processes that use the device right now; None when it cannot tell. Raises `UnknownDeviceError`."""

    def feed(
        self, device_uuids: Sequence[str], *, lease_id: str, cpu_time_ms: int, memory_bytes: int, process_ids: tuple[int, ...], now_ms: int
    ) -> None:
        """Take a lease's cumulative CPU time, resident memory and live processes. Real devices measure themselves and ignore it."""

    def forget(self, lease_id: str) -> None:
        """End the influence of a lease that was fed. Real devices ignore it."""

    def close(self) -> None:
        """Release the driver; the set must not be used afterwards. Closing twice is allowed."""


def health(sample: DeviceSample) -> DeviceHealth:
    """Judge one sample: faulty for a fault that only a reset clears, unknown when the device could not be read."""
    if sample.fault is None:
        return DeviceHealth.HEALTHY
    if sample.fault.code is FaultCode.UNREADABLE:
        return DeviceHealth.UNKNOWN
    return DeviceHealth.FAULTY


def model_of(name: str) -> str:
    """Return the GPU model that flavors are named after: "NVIDIA H100 80GB HBM3" is "h100", "NVIDIA RTX A6000" is "rtx-a6000".

    The words after the vendor's are kept up to and including the first that holds a digit: the rest is packaging and memory.
    """
    kept: list[str] = []
    for word in re.findall(r"[a-z0-9]+", name.lower()):
        if word in _VENDOR_WORDS:
            continue
        kept.append(word)
        if any(character.isdigit() for character in word):
            break
    return "-".join(kept) or "unknown"
