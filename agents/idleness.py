"""The proof that a device is free, which the agent needs before it says so.

Owns: the verdict and its reasons. Does not own: killing what is left (sandbox/) or quarantining a device that stays busy
(the scheduler). Called when a lease ends and when an agent starts. Not knowing is not a proof: a device that cannot
say who uses it is not free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agents.devices import DeviceSet, UnknownDeviceError


class NotIdleReason(StrEnum):
    """Why a device is not proven free."""

    TREE_ALIVE = "tree_alive"
    DEVICE_BUSY = "device_busy"
    DEVICE_SILENT = "device_silent"
    DEVICE_UNKNOWN = "device_unknown"


@dataclass(frozen=True, slots=True)
class NotIdle:
    """One obstacle: a device (None for the lease's process tree as a whole) and the processes seen."""

    reason: NotIdleReason
    device_uuid: str | None
    process_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IdleProof:
    """The verdict over some devices: idle when there is no obstacle."""

    obstacles: tuple[NotIdle, ...]

    @property
    def is_idle(self) -> bool:
        """Tell whether every device is proven free."""
        return not self.obstacles


def prove(devices: DeviceSet, device_uuids: Sequence[str], *, live_process_ids: tuple[int, ...]) -> IdleProof:
    """Ask every device who uses it now. `live_process_ids` are the live members of the lease's tree, empty when it is gone.

    A device that cannot be seen any more is an obstacle as well: who uses it cannot be known.
    """
    obstacles = []
    if live_process_ids:
        obstacles.append(NotIdle(NotIdleReason.TREE_ALIVE, None, live_process_ids))
    for device_uuid in device_uuids:
        try:
            process_ids = devices.process_ids(device_uuid)
        except UnknownDeviceError:
            obstacles.append(NotIdle(NotIdleReason.DEVICE_UNKNOWN, device_uuid, ()))
            continue
        if process_ids is None:
            obstacles.append(NotIdle(NotIdleReason.DEVICE_SILENT, device_uuid, ()))
        elif process_ids:
            obstacles.append(NotIdle(NotIdleReason.DEVICE_BUSY, device_uuid, process_ids))
    return IdleProof(obstacles=tuple(obstacles))
