"""The state file of the NVML stub, seen from Python.

Mirrors the structures of nvml_stub.c field by field; the stub refuses a file of another size. A `StubState` is mapped
into memory on both sides, so an assignment here is what the next NVML call reads.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any

STATE_VARIABLE = "TERRACE_NVML_STUB_STATE"
DEVICES_MAX = 8
PROCESSES_MAX = 16
H200_MEMORY_BYTES = 143_771 * 1024 * 1024

NO_UTILISATION, NO_ENERGY, NO_ECC, NO_MIG, NO_PROCESSES, NO_SERIAL, NO_GRAPHICS = (1 << bit for bit in range(7))


class StubDevice(ctypes.Structure):
    """One device; see nvml_stub.c for the meaning of a field."""

    _fields_ = [
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("serial", ctypes.c_char * 32),
        ("bus_id", ctypes.c_char * 32),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("energy_millijoule", ctypes.c_uint64),
        ("ecc_corrected", ctypes.c_uint64),
        ("ecc_uncorrected", ctypes.c_uint64),
        ("utilisation_percent", ctypes.c_uint32),
        ("power_milliwatt", ctypes.c_uint32),
        ("temperature_celsius", ctypes.c_uint32),
        ("is_mig_enabled", ctypes.c_uint32),
        ("not_supported", ctypes.c_uint32),
        ("error", ctypes.c_uint32),
        ("pending_xid", ctypes.c_uint32),
        ("compute_count", ctypes.c_uint32),
        ("graphics_count", ctypes.c_uint32),
        ("compute", ctypes.c_uint32 * PROCESSES_MAX),
        ("graphics", ctypes.c_uint32 * PROCESSES_MAX),
    ]

    def run(self, *process_ids: int) -> None:
        """Let exactly these compute processes use the device."""
        self.compute[: len(process_ids)] = process_ids
        self.compute_count = len(process_ids)


class StubState(ctypes.Structure):
    """The whole state. Make one with `create`."""

    _fields_ = [
        ("init_error", ctypes.c_uint32),
        ("device_count", ctypes.c_uint32),
        ("driver_version", ctypes.c_char * 80),
        ("devices", StubDevice * DEVICES_MAX),
    ]


def create(path: Path, *, device_count: int = DEVICES_MAX) -> Any:
    """Write a state of idle H200 devices and return it, mapped."""
    path.write_bytes(bytes(ctypes.sizeof(StubState)))
    with path.open("r+b") as file:
        state = StubState.from_buffer(mmap.mmap(file.fileno(), 0))
    state.device_count = device_count
    state.driver_version = b"580.0.stub"
    for index, device in enumerate(state.devices):
        device.uuid = f"GPU-{index:08x}-0000-4000-8000-000000000000".encode()
        device.name = b"NVIDIA H200"
        device.serial = f"16524{index:08d}".encode()
        device.bus_id = f"00000000:{index + 1:02X}:00.0".encode()
        device.memory_total = H200_MEMORY_BYTES
        device.power_milliwatt = 75_000
        device.temperature_celsius = 30
    return state
