"""Nodes and devices as a decision sees them: names, sizes and whether they may be used. Numbers, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.slices import MILLI_GPU_PER_DEVICE, DeviceHealth, DeviceMode


@dataclass(frozen=True, slots=True)
class Device:
    """A physical GPU of a node; `index` counts from 0 on its node."""

    index: int
    model: str
    mode: DeviceMode = DeviceMode.WHOLE
    health: DeviceHealth = DeviceHealth.HEALTHY
    milli_gpu_total: int = MILLI_GPU_PER_DEVICE
    island: int = 0  # devices of one node with the same number are joined by NVLink


@dataclass(frozen=True, slots=True)
class Node:
    """A machine. One that is not schedulable (cordoned, draining, lost) keeps its leases and gets no new ones."""

    name: str
    site: str
    rack: str = ""
    gpu_model: str | None = None
    devices: tuple[Device, ...] = ()
    cpu_milli: int = 0
    memory_bytes: int = 0
    is_schedulable: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()  # only jobs that tolerate all of them are placed here
