"""The billing loop: ended leases become usage lines.

Load a bounded batch of unrated leases and the price book, rate them with billing/calc, store lines and marks in one transaction. The
marks make a rerun harmless: a lease is rated once whoever does it, and the same rows give the same lines. So this needs no leader: every
scheduler process rates, and who comes second finds nothing to do. Started by the composition root; looks every `idle_seconds`, because
nobody waits for a line as one waits for a start, and at once again while batches are full.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from billing.calc import rating
from billing.service import clock
from store import usage
from store.engine import Store

LEASES_RATED = Counter("terrace_billing_leases_rated_total", "Leases that were rated since the process started.")
FAILURES = Counter("terrace_billing_failures_total", "Batches that could not be rated and were tried again.")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """In which currency prices are read and lines written, and how often the loop looks."""

    currency: str = "USD"  # finance
    idle_seconds: float = 1.0  # between two looks when nothing waits; operators
    retry_seconds: float = 1.0  # after an error; nobody needs to


async def rate_once(store: Store, settings: BillingSettings, *, now_ms: int) -> int:
    """Rate one batch; return how many leases were rated. 0 means that nothing is waiting."""
    leases, prices = await store.read(usage.LeasesToRate(settings.currency))
    if not leases:
        return 0
    lines = [line for lease in leases for line in rating.rate(lease, prices)]
    rated = await store.run(usage.StoreLines(lines, [lease.id for lease in leases], settings.currency, now_ms))
    LEASES_RATED.inc(rated)
    return rated


async def run(store: Store, settings: BillingSettings, stop: asyncio.Event, *, now_ms: Callable[[], int] = clock.now_ms) -> None:
    """Rate until `stop` is set. An error is logged and counted, and the batch tried again."""
    while not stop.is_set():
        pause = settings.idle_seconds
        try:
            if await rate_once(store, settings, now_ms=now_ms()):
                pause = 0.0
        except Exception:
            FAILURES.inc()
            log.exception("rating failed; trying again", retry_seconds=settings.retry_seconds)
            pause = settings.retry_seconds
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
