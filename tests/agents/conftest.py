"""Fixtures of the device tests: the compiled stub, and a bench that drives either device set by the same words.

A bench makes a device busy, puts processes on it and breaks it. The conformance tests know nothing else, so what they
say holds for simulated devices and for NVML alike.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from agents.devices import DeviceFault, DeviceSet, FaultCode
from agents.nvml import NvmlDeviceSet
from agents.sandbox import machine
from agents.simulated import SimulatedDeviceSet
from store.engine import Store
from tests.agents.node_world import World
from tests.nvml_stub import build, state
from tests.sandbox import plain_environment
from tests.support.api import Api

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


@pytest.fixture(scope="session")
def plain_runtime() -> Iterator[Path]:
    """The folder of a job environment without Ray."""
    with plain_environment.made() as folder:
        yield folder


@asynccontextmanager
async def opened_world(url: str, tmp_path: Path, plain_runtime: Path) -> AsyncIterator[World]:
    """A node whose agent runs leases in namespaces where the machine gives them; without them an ordinary user can run leases too."""
    refusal = machine.namespaces_refusal(60_600) if os.geteuid() == 0 else None
    if refusal is not None:
        pytest.skip(f"run by root, and no namespaces for leases on this machine: {refusal}")
    store = Store.open(url)
    with tempfile.TemporaryDirectory(prefix="terrace-", ignore_cleanup_errors=True) as folder:
        async with Api.opened(store, tmp_path) as api, World.opened(api, Path(folder) / "agent", plain_runtime) as opened:
            yield opened
    store.close()


@pytest.fixture
async def world(sqlite_url: str, tmp_path: Path, plain_runtime: Path) -> AsyncIterator[World]:
    """A node and its service."""
    async with opened_world(sqlite_url, tmp_path, plain_runtime) as opened:
        yield opened


@pytest.fixture
async def world_on_each(database_url: str, tmp_path: Path, plain_runtime: Path) -> AsyncIterator[World]:
    """A node and its service, on each kind of database."""
    async with opened_world(database_url, tmp_path, plain_runtime) as opened:
        yield opened
