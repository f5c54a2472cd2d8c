"""Flavors, slices and device modes: what can be asked for and what is allocated.

A flavor is a kind of slice that can be asked for and priced (`h200`, `h200.1g.18gb`, `h200.shared`). A slice is one
allocatable piece of one device. Quota counts slices in milli-GPU: a whole device is 1000.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MILLI_GPU_PER_DEVICE = 1_000


class DeviceMode(StrEnum):
    """How a device is cut; never changes under an open lease."""

    WHOLE = "whole"
    MIG = "mig"
    SHARED = "shared"


class DeviceHealth(StrEnum):
    """Whether a device may be leased: healthy ones only; a quarantined one was not proven free."""

    HEALTHY = "healthy"
    FAULTY = "faulty"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Flavor:
    """A kind of slice: its name, the GPU model that it is cut from, how, and its size."""

    name: str
    gpu_model: str
    mode: DeviceMode
    milli_gpu: int


@dataclass(frozen=True, slots=True)
class Slice:
    """One allocated piece of one device. `start_cell` and `profile` are set for MIG only."""

    replica: int
    node: str
    device_index: int
    milli_gpu: int
    profile: str | None = None
    start_cell: int | None = None
