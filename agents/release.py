"""From the end of a lease's processes to the word that its devices are free.

Owns: asking until every device is proven idle, and naming those that stay busy. Does not own: the proof (idleness.py, telemetry.py) or
telling the service of a device's health (daemon.py samples it and looks at `unproven`). Until the proof the lease is not reported gone,
so nobody else is given its devices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from agents import idleness
from agents.surroundings import Surroundings
from agents.telemetry import LeaseTableError

log = structlog.get_logger()


async def report_when_idle(lease_id: str, device_uuids: Sequence[str], around: Surroundings) -> None:
    """Report a lease whose processes are gone as gone, once nobody uses its devices."""
    started_ms = around.monotonic_ms()
    named: set[str] = set()
    while not (proof := await asyncio.to_thread(_prove, lease_id, device_uuids, around)).is_idle:
        if not named and around.monotonic_ms() - started_ms >= around.settings.suspect_after_ms:
            for obstacle in proof.obstacles:
                log.error("a device is not free", lease=lease_id, device=obstacle.device_uuid, reason=obstacle.reason.value)
            named = {obstacle.device_uuid for obstacle in proof.obstacles if obstacle.device_uuid is not None}
            around.unproven |= named
        await asyncio.sleep(around.settings.prove_every_ms / 1_000)
    around.unproven -= named
    now_ms = around.now_ms()
    await asyncio.to_thread(around.telemetry.release, lease_id, now_ms=now_ms)
    await around.keep(lambda: around.spool.report_gone(lease_id, observed_at_ms=now_ms))


def _prove(lease_id: str, device_uuids: Sequence[str], around: Surroundings) -> idleness.IdleProof:
    try:
        return around.telemetry.prove_idle(lease_id, now_ms=around.now_ms())
    except LeaseTableError:  # it never got into the table, or an earlier boot of the agent had it there
        return around.telemetry.prove_devices_idle(device_uuids)
