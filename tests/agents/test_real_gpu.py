"""The same readings from a real driver, where there is one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROCESS_SECONDS_MAX = 60
# A process of its own: in this one the stub may already stand in for the driver's library.
INSPECT = """
import dataclasses, json
from agents.device_selection import DeviceSettings, open_device_set
from agents.devices import NoDriverError
try:
    devices = open_device_set(DeviceSettings(node_name="node-a"))
except NoDriverError as error:
    print(json.dumps({"no_driver": str(error)}))
else:
    inventory, system = devices.inventory(), devices.system()
    samples = devices.sample(1), devices.sample(2)
    idle = [devices.process_ids(device.uuid) for device in inventory]
    devices.close()
    found = {"inventory": inventory, "first": samples[0], "second": samples[1]}
    plain = {name: [dataclasses.asdict(value) for value in values] for name, values in found.items()}
    print(json.dumps({**plain, "system": dataclasses.asdict(system), "process_ids": idle}))
"""


@pytest.mark.gpu
def test_real_devices_are_read_without_a_fault_and_their_energy_grows() -> None:
    command = [sys.executable, "-c", INSPECT]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_SECONDS_MAX, check=True)
    seen = json.loads(finished.stdout)
    if "no_driver" in seen:
        pytest.skip(f"no real GPU here: {seen['no_driver']}")
    assert all(device["memory_bytes"] > 0 and not device["is_simulated"] for device in seen["inventory"])
    assert all(sample["fault"] is None and sample["temperature_celsius"] is not None for sample in seen["second"])
    pairs = zip(seen["first"], seen["second"], strict=True)
    assert all(first["energy_millijoule"] is None or first["energy_millijoule"] <= second["energy_millijoule"] for first, second in pairs)
    assert seen["system"]["driver_version"]
