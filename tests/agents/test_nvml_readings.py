"""What is particular to NVML: readings that a device does not offer, faults, XIDs, and drivers that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents import devices
from agents.device_selection import DeviceSettings, open_device_set
from agents.devices import DeviceFault, FaultCode, NoDriverError, NoDriverReason
from agents.nvml import NvmlDeviceSet
from domain.slices import DeviceHealth
from tests.agents.conftest import NvmlBench
from tests.nvml_stub import build, state

pytestmark = pytest.mark.stub

PROCESS_SECONDS_MAX = 30
ASK_FOR_DEVICES = """
import dataclasses, json
from agents.device_selection import DeviceSettings, open_device_set
from agents.devices import NoDriverError
try:
    devices = open_device_set(DeviceSettings(node_name="node-a"))
    print(json.dumps([dataclasses.asdict(sample) for sample in devices.sample(1)]))
except NoDriverError as error:
    print(json.dumps(error.reason))
"""


def ask_in_new_process(environment: dict[str, str]) -> Any:
    """Open the devices in a fresh interpreter, where the dynamic loader looks for the driver anew."""
    command = [sys.executable, "-c", ASK_FOR_DEVICES]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROCESS_SECONDS_MAX, check=True)
    return json.loads(finished.stdout)


@pytest.mark.parametrize(
    ("bit", "reading"),
    [
        pytest.param(state.NO_UTILISATION, "utilisation_permille", id="utilisation, as on a device in MIG mode"),
        pytest.param(state.NO_ENERGY, "energy_millijoule", id="energy, as before Volta"),
        pytest.param(state.NO_ECC, "ecc_uncorrected", id="ECC, as where it is switched off"),
        pytest.param(state.NO_PROCESSES, "process_ids", id="processes, as in some containers"),
    ],
)
def test_reading_that_is_not_supported_is_none_and_no_fault(nvml_bench: NvmlBench, bit: int, reading: str) -> None:
    nvml_bench.state.devices[0].not_supported = bit
    sample = nvml_bench.devices.sample(1)[0]
    assert (getattr(sample, reading), sample.fault) == (None, None)
    assert sample.temperature_celsius == 30


def test_device_that_hides_its_processes_is_silent_not_free(nvml_bench: NvmlBench) -> None:
    nvml_bench.state.devices[0].not_supported = state.NO_PROCESSES
    assert nvml_bench.devices.process_ids(nvml_bench.devices.inventory()[0].uuid) is None


def test_graphics_processes_count_as_users_of_a_device(nvml_bench: NvmlBench) -> None:
    device = nvml_bench.state.devices[0]
    device.run(5)
    device.graphics[0], device.graphics_count = 9, 1
    assert nvml_bench.devices.process_ids(nvml_bench.devices.inventory()[0].uuid) == (5, 9)


def test_device_without_mig_has_no_table_and_no_serial_is_no_error(stub_state: Any) -> None:
    stub_state.devices[0].not_supported = state.NO_MIG | state.NO_SERIAL
    opened = NvmlDeviceSet()
    first, second = opened.inventory()[:2]
    opened.close()
    assert (first.mig, first.serial, first.is_mig_enabled) == (None, None, False)
    assert (second.serial, second.pci_bus_id) == ("1652400000001", "00000000:02:00.0")


def test_fatal_xid_condemns_the_device_for_good(nvml_bench: NvmlBench) -> None:
    nvml_bench.state.devices[2].pending_xid = 79
    first, later = nvml_bench.devices.sample(1)[2], nvml_bench.devices.sample(2)[2]
    assert first.fault == later.fault == DeviceFault(FaultCode.XID, 79)
    assert devices.health(later) is DeviceHealth.FAULTY


def test_xid_of_an_application_is_reported_but_leaves_the_device_healthy(nvml_bench: NvmlBench) -> None:
    nvml_bench.state.devices[2].pending_xid = 31
    sample = nvml_bench.devices.sample(1)[2]
    assert (sample.last_xid, devices.health(sample)) == (31, DeviceHealth.HEALTHY)


@pytest.mark.parametrize(
    ("error", "code", "health"),
    [
        pytest.param(16, FaultCode.RESET_REQUIRED, DeviceHealth.FAULTY, id="reset required is a fault"),
        pytest.param(999, FaultCode.UNREADABLE, DeviceHealth.UNKNOWN, id="unknown error is not knowing"),
    ],
)
def test_error_of_a_device_becomes_its_fault(nvml_bench: NvmlBench, error: int, code: FaultCode, health: DeviceHealth) -> None:
    nvml_bench.state.devices[0].error = error
    sample = nvml_bench.devices.sample(1)[0]
    assert (sample.fault, devices.health(sample)) == (DeviceFault(code, error), health)


def test_uncorrected_memory_errors_are_a_fault_that_still_shows_its_readings(nvml_bench: NvmlBench) -> None:
    nvml_bench.state.devices[0].ecc_uncorrected = 3
    sample = nvml_bench.devices.sample(1)[0]
    assert (sample.fault, sample.temperature_celsius) == (DeviceFault(FaultCode.ECC, 3), 30)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(9, NoDriverReason.DRIVER_NOT_LOADED, id="kernel module not loaded"),
        pytest.param(18, NoDriverReason.VERSION_MISMATCH, id="library and kernel module differ"),
        pytest.param(999, NoDriverReason.FAILED, id="anything else"),
    ],
)
def test_driver_that_does_not_start_is_named(stub_state: Any, error: int, reason: NoDriverReason) -> None:
    stub_state.init_error = error
    with pytest.raises(NoDriverError) as refusal:
        open_device_set(DeviceSettings(node_name="node-a"))
    assert refusal.value.reason is reason


def test_driver_without_devices_is_no_driver(stub_state: Any) -> None:
    stub_state.device_count = 0
    with pytest.raises(NoDriverError, match="no_devices"):
        NvmlDeviceSet()


def test_driver_that_answers_is_preferred_to_simulation(stub_state: Any) -> None:
    opened = open_device_set(DeviceSettings(node_name="node-a", is_simulation_allowed=True))
    assert not opened.is_simulated
    assert (opened.system().driver_version, opened.system().cuda_version) == ("580.0.stub", "13.1")
    opened.close()


def test_simulation_replaces_a_missing_driver_only_where_allowed(stub_state: Any) -> None:
    stub_state.init_error = 9
    assert open_device_set(DeviceSettings(node_name="node-a", is_simulation_allowed=True)).is_simulated
    with pytest.raises(NoDriverError):
        open_device_set(DeviceSettings(node_name="node-a"))


def test_forced_simulation_does_not_ask_for_a_driver(stub_state: Any) -> None:
    opened = open_device_set(DeviceSettings(node_name="node-a", is_simulation_forced=True, simulated_device_count=2))
    assert [device.is_simulated for device in opened.inventory()] == [True, True]


def test_operator_may_name_the_model_of_a_product(stub_state: Any) -> None:
    stub_state.devices[0].name = b"NVIDIA H200 NVL"
    opened = NvmlDeviceSet(model_names={"NVIDIA H200 NVL": "h200-nvl"})
    assert [device.model for device in opened.inventory()[:2]] == ["h200-nvl", "h200"]
    opened.close()


def test_partial_driver_is_found_on_the_library_path_and_lacks_readings_quietly(tmp_path: Path) -> None:
    library = build.compile_stub(tmp_path, is_partial=True)
    state.create(tmp_path / "state", device_count=1)
    (sample,) = ask_in_new_process(build.environment(library, **{state.STATE_VARIABLE: str(tmp_path / "state")}))
    assert (sample["energy_millijoule"], sample["fault"], sample["power_milliwatt"]) == (None, None, 75_000)


def test_library_that_cannot_be_loaded_is_a_missing_library(tmp_path: Path) -> None:
    (tmp_path / build.SONAME).write_bytes(b"not a library")
    assert ask_in_new_process({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}) == NoDriverReason.LIBRARY_MISSING
