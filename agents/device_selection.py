"""Which devices this node works with: the driver's when one answers, simulated ones only where that was allowed.

Owns: the settings of that choice and the choice. Does not own: either implementation. Called once, when an agent starts.
A production agent leaves simulation forbidden: a driver that fails to load must stop the agent, never turn a machine
full of real devices into pretended ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agents import simulated
from agents.devices import DeviceSet, NoDriverError
from agents.nvml import NvmlDeviceSet


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How to open the devices of a node.

    `is_simulation_allowed`: fall back to simulated devices where no driver answers; the embedded mode sets it.
    `is_simulation_forced`: do not even ask for a driver; for demonstrations on a machine that has one.
    `model_names`: product name to GPU model, for an operator who prices two variants of one product apart.
    """

    node_name: str
    is_simulation_allowed: bool = False
    is_simulation_forced: bool = False
    simulated_device_count: int = simulated.DEVICE_COUNT
    model_names: Mapping[str, str] = field(default_factory=dict)


def open_device_set(settings: DeviceSettings) -> DeviceSet:
    """Open the node's devices; the caller closes them. Raises `NoDriverError` when none answers and simulation is not allowed."""
    if settings.is_simulation_forced:
        return _simulate(settings)
    try:
        return NvmlDeviceSet(model_names=settings.model_names)
    except NoDriverError:
        if not settings.is_simulation_allowed:
            raise
        return _simulate(settings)


def _simulate(settings: DeviceSettings) -> DeviceSet:
    return simulated.SimulatedDeviceSet(settings.node_name, device_count=settings.simulated_device_count)
