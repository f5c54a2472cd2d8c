"""What the leases of an agent share, and the one way in which something seen is kept.

Owns: the report of something seen, tried again for as long as the disk refuses it, and the set of devices that are not proven free. Does
not own: the spool (spool.py), sending (reporting.py) or one lease (lease_runs.py). Reports are kept from any thread or task; `wake` is
called on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from agents.devices import Device, DeviceSet
from agents.link import Link
from agents.sandbox.spec import LeaseSpec, SandboxEvent, SandboxHandle
from agents.settings import AgentSettings
from agents.spool import Spool, SpoolBusyError
from agents.telemetry import Telemetry

log = structlog.get_logger()


class ProcessTree(Protocol):
    """What runs a lease: `agents.sandbox.supervise.Sandbox`, or a stand-in."""

    def start(self, spec: LeaseSpec, /) -> SandboxHandle:
        """Start and return at once; SandboxError when this machine cannot."""

    def poll(self) -> list[SandboxEvent]:
        """Return what happened since the last call; the last event ever is GONE."""

    def stop(self, grace_ms: int, /) -> None:
        """Give notice now and kill after `grace_ms`."""

    def kill(self) -> None:
        """Kill the whole tree now."""

    def discard(self) -> None:
        """Delete the lease's directory, after GONE."""


@dataclass(slots=True)
class Surroundings:
    """What all leases of an agent share. `unproven` are the devices that stayed busy after their lease's end."""

    settings: AgentSettings
    link: Link
    spool: Spool
    telemetry: Telemetry
    device_set: DeviceSet
    devices: Mapping[str, Device]
    make_tree: Callable[[], ProcessTree]
    now_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000)
    monotonic_ms: Callable[[], int] = field(default=lambda: time.monotonic_ns() // 1_000_000)
    wake: Callable[[], None] = field(default=lambda: None)
    unproven: set[str] = field(default_factory=set)

    async def report(self, kind: str, lease_id: str | None, data: Mapping[str, Any], *, at_ms: int | None = None) -> None:
        """Keep a report and have it sent."""
        observed_at_ms = self.now_ms() if at_ms is None else at_ms
        await self.keep(lambda: self.spool.add(kind, lease_id, data, observed_at_ms=observed_at_ms))

    async def keep(self, write: Callable[[], None]) -> None:
        """Do a write of the spool, trying until the disk takes it, and have what waits sent."""
        is_told = False
        while True:
            try:
                await asyncio.to_thread(write)
            except SpoolBusyError as error:
                if not is_told:
                    log.error("a report cannot be kept; trying until it can", error=str(error))
                    is_told = True
                await asyncio.sleep(self.settings.spool_retry_ms / 1_000)
            else:
                self.wake()
                return
