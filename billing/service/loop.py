"""The billing loop: ended leases become usage lines.

Load a bounded batch of unrated leases and the price book, rate them with billing/calc, store lines and marks in one transaction. The
marks make a rerun harmless: a lease is rated once whoever does it, and the same rows give the same lines. Started by the composition
root beside the scheduler; wakes when the database changes and at the latest after `idle_seconds`.
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
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """`currency`: in which prices are read and lines written; finance. `idle_seconds`: longest time between two looks; operators."""

    currency: str = "USD"
    idle_seconds: float = 1.0


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
    """Rate until `stop` is set. An error of the database is logged and tried again after `RETRY_SECONDS`."""
    while not stop.is_set():
        pause = settings.idle_seconds
        try:
            if await rate_once(store, settings, now_ms=now_ms()):
                pause = 0.0
        except Exception:
            log.exception("rating failed; trying again", retry_seconds=RETRY_SECONDS)
            pause = RETRY_SECONDS
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
