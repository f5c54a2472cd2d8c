"""Fixtures of the device tests: the compiled stub, and a bench that drives either device set by the same words.

A bench makes a device busy, puts processes on it and breaks it. The conformance tests know nothing else, so what they
say holds for simulated devices and for NVML alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from agents.devices import DeviceFault, DeviceSet, FaultCode
from agents.nvml import NvmlDeviceSet
from agents.simulated import SimulatedDeviceSet
from tests.nvml_stub import build, state

NVML_GPU_IS_LOST = 15


class Bench(Protocol):
    """A device set and the levers on its first device."""

    @property
    def devices(self) -> DeviceSet:
        """The set under test."""

    def work(self, *, process_ids: tuple[int, ...], from_ms: int, to_ms: int) -> None:
        """Keep device 0 fully busy with these processes."""

    def rest(self) -> None:
        """Take all processes off device 0."""

    def lose(self) -> None:
        """Let device 0 fall off the bus."""


@dataclass
class SimulatedBench:
    """Levers on simulated devices: the feeding of a lease."""

    devices: SimulatedDeviceSet

    def work(self, *, process_ids: tuple[int, ...], from_ms: int, to_ms: int) -> None:
        first = [self.devices.inventory()[0].uuid]
        for now_ms in (from_ms, to_ms):
            cpu_time_ms = now_ms - from_ms
            self.devices.feed(
                first, lease_id="lea_a", cpu_time_ms=cpu_time_ms, memory_bytes=1 << 30, process_ids=process_ids, now_ms=now_ms
            )

    def rest(self) -> None:
        self.devices.forget("lea_a")

    def lose(self) -> None:
        self.devices.inject_fault(self.devices.inventory()[0].uuid, DeviceFault(FaultCode.LOST, NVML_GPU_IS_LOST))


@dataclass
class NvmlBench:
    """Levers on the stub's state file, with the real nvidia-ml-py in between."""

    devices: NvmlDeviceSet
    state: Any

    def work(self, *, process_ids: tuple[int, ...], from_ms: int, to_ms: int) -> None:
        device = self.state.devices[0]
        device.run(*process_ids)
        device.utilisation_percent, device.power_milliwatt, device.memory_used = 100, 700_000, 1 << 30
        device.energy_millijoule += 700 * (to_ms - from_ms)

    def rest(self) -> None:
        device = self.state.devices[0]
        device.run()
        device.utilisation_percent, device.power_milliwatt, device.memory_used = 0, 75_000, 0

    def lose(self) -> None:
        self.state.devices[0].error = NVML_GPU_IS_LOST


@pytest.fixture(scope="session")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stub, loaded into this process for all tests that ask for it."""
    library = build.compile_stub(tmp_path_factory.mktemp("nvml"))
    build.preload(library)
    return library


@pytest.fixture
def stub_state(stub_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Eight idle devices that the next `NvmlDeviceSet` will find."""
    path = tmp_path / "nvml.state"
    monkeypatch.setenv(state.STATE_VARIABLE, str(path))
    return state.create(path)


@pytest.fixture
def nvml_bench(stub_state: Any) -> Iterator[NvmlBench]:
    """The real nvidia-ml-py over the stub."""
    devices = NvmlDeviceSet()
    yield NvmlBench(devices, stub_state)
    devices.close()


@pytest.fixture(params=["simulated", pytest.param("nvml", marks=pytest.mark.stub)])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each device set in turn."""
    if request.param == "nvml":
        nvml: NvmlBench = request.getfixturevalue("nvml_bench")
        return nvml
    return SimulatedBench(SimulatedDeviceSet("node-a"))
