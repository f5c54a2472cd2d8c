"""Telling the service what was seen: batches from the spool, which are heartbeats too.

Owns the pace: a report leaves as soon as it is there, an empty batch only when nothing was sent for `heartbeat_ms`, and after a failure
waits that double up to a limit. Does not own what is seen (lease_runs.py) or its keeping (spool.py). One batch is under way at a time, so
reports arrive in order. A batch that the service refuses for good is sent again report by report, and only the refused ones are dropped.
The spool is asked in threads: its disk may be slow, and the loop has leases to watch.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import structlog

from agents.link import Link, LinkDownError, LinkRefusedError
from agents.settings import AgentSettings
from agents.spool import Report, Spool, SpoolBusyError
from terrace.models.agents import ObservationBatch, ObservationKind, ObservationReport

BATCH_REPORTS_MAXIMUM = 500
BATCH_BYTES_MAXIMUM = 2 * 1024 * 1024

log = structlog.get_logger()


class Backoff:
    """Waits that double from a minimum to a maximum, in milliseconds, and start again after a success."""

    def __init__(self, minimum_ms: int, maximum_ms: int) -> None:
        self._minimum_ms, self._maximum_ms = minimum_ms, maximum_ms
        self._next_ms = minimum_ms

    def failed(self) -> float:
        """Return how many seconds to wait now."""
        now_ms = self._next_ms
        self._next_ms = min(self._maximum_ms, 2 * self._next_ms)
        return now_ms / 1_000

    def succeeded(self) -> None:
        """Start again from the minimum."""
        self._next_ms = self._minimum_ms


class Reporter:
    """Sends what the spool holds. `wake` tells it that there is something new."""

    def __init__(self, link: Link, spool: Spool, settings: AgentSettings, *, boot_id: str) -> None:
        self._link, self._spool, self._settings, self._boot_id = link, spool, settings, boot_id
        self._backoff = Backoff(settings.backoff_minimum_ms, settings.backoff_maximum_ms)
        self._new = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def wake(self) -> None:
        """Send soon. To be called on the event loop's thread."""
        self._new.set()

    async def run(self) -> None:
        """Send until cancelled. Every batch is durable work for the service, so waking without a report sends nothing."""
        clock = asyncio.get_running_loop().time
        heartbeat_at = clock()
        while True:
            self._new.clear()
            try:
                wait_seconds = heartbeat_at - clock()
                if wait_seconds > 0 and await asyncio.to_thread(self._spool.is_empty):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_seconds):  # wait_for may swallow a cancellation that comes with a wake
                            await self._new.wait()
                    continue
                await self.send_once()
            except (LinkDownError, SpoolBusyError) as error:
                wait_seconds = self._backoff.failed()
                log.warning("reports do not get through", error=str(error), next_try_seconds=wait_seconds)
                await asyncio.sleep(wait_seconds)
            else:
                self._backoff.succeeded()
                heartbeat_at = clock() + self._settings.heartbeat_ms / 1_000

    async def flush(self, seconds: float) -> bool:
        """Send everything, trying for `seconds`; False when something stays in the spool for the next start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await asyncio.to_thread(self._spool.is_empty):
                    try:
                        await self.send_once()
                    except (LinkDownError, SpoolBusyError):
                        await asyncio.sleep(self._backoff.failed())
        return await asyncio.to_thread(self._spool.is_empty)

    async def send_once(self) -> None:
        """Send one batch, empty when there is nothing. LinkDownError when it must be tried again."""
        async with self._one_at_a_time:
            reports = await asyncio.to_thread(self._oldest)
            boot_id = reports[0].boot_id if reports else self._boot_id
            try:
                await self._send(reports, boot_id)
            except LinkRefusedError:
                if not reports:
                    raise LinkDownError("the service refuses even an empty batch") from None
                await self._send_singly(reports)

    def _oldest(self) -> list[Report]:
        return self._spool.oldest(reports_maximum=BATCH_REPORTS_MAXIMUM, bytes_maximum=BATCH_BYTES_MAXIMUM)

    async def _send(self, reports: list[Report], boot_id: str) -> None:
        accepted = await self._link.send_observations(_batch(reports, boot_id))
        if reports:
            if accepted < reports[0].seq:
                raise LinkDownError(f"the service took nothing of a batch that begins with {reports[0].seq}")
            await asyncio.to_thread(self._spool.forget_through, min(accepted, reports[-1].seq), boot_id=boot_id)

    async def _send_singly(self, reports: list[Report]) -> None:
        for report in reports:
            try:
                await self._send([report], report.boot_id)
            except LinkRefusedError as error:
                log.error("the service refuses a report; it is dropped", kind=report.kind, lease=report.lease_id, error=str(error))
                await asyncio.to_thread(self._spool.forget, report.seq)


def _batch(reports: list[Report], boot_id: str) -> ObservationBatch:
    """Return the batch; LinkRefusedError for what the wire does not know, as if the service had said so."""
    try:
        return ObservationBatch(boot_id=boot_id, observations=[_wire(report) for report in reports])
    except (ValueError, OverflowError, OSError) as error:
        raise LinkRefusedError(0, f"this batch cannot be put on the wire: {error}") from error


def _wire(report: Report) -> ObservationReport:
    return ObservationReport(
        agent_seq=report.seq,
        kind=ObservationKind(report.kind),
        lease_id=report.lease_id,
        observed_at=datetime.fromtimestamp(report.observed_at_ms / 1_000, tz=UTC),
        data=dict(report.data),
    )
