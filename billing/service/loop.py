"""The billing loop: ended leases become usage lines.

Load a bounded batch of unrated leases and the price book, rate them with billing/calc, store lines and marks in one transaction. The
marks make a rerun harmless: a lease is rated once whoever does it, and the same rows give the same lines. So this needs no leader: every
scheduler process rates, and who comes second finds nothing to do. Started by the composition root; looks every `idle_seconds`, because
nobody waits for a line as one waits for a start, and at once again while batches are full.

A price that comes in between reading the book and storing the lines would leave them wrong for ever, so nothing is stored then and the
batch is rated again. A lease that cannot be rated is set aside for a while, logged and counted: it holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from billing.calc import pricing, rating
from billing.service import clock
from billing.service.reservations import count_once
from store import usage
from store.engine import Store

BOOK_CHANGES_MAXIMUM = 5  # times in a row that a batch is rated anew because the price book changed
ASIDE_MAXIMUM = 1_000  # leases set aside at a time; beyond them the first is tried again

LEASES_RATED = Counter("terrace_billing_leases_rated_total", "Leases that were rated since the process started.")
SET_ASIDE = Counter("terrace_billing_leases_set_aside_total", "Times that a lease could not be rated and was set aside for a while.")
FAILURES = Counter("terrace_billing_failures_total", "Batches that could not be rated and were tried again.")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """In which currency prices are read and lines written, and how often the loop looks."""

    currency: str = "USD"  # finance
    idle_seconds: float = 1.0  # between two looks when nothing waits; operators
    retry_seconds: float = 1.0  # after an error; nobody needs to
    aside_seconds: float = 600.0  # until a lease that could not be rated is tried again; nobody needs to


class Aside:
    """The leases that could not be rated lately, each with the time from which it is tried again."""

    def __init__(self, settings: BillingSettings) -> None:
        """Begin with none."""
        self._aside_ms = int(settings.aside_seconds * 1_000)
        self._until_ms: dict[str, int] = {}

    def at(self, now_ms: int) -> frozenset[str]:
        """Return those that are left alone now."""
        self._until_ms = {lease: until_ms for lease, until_ms in self._until_ms.items() if until_ms > now_ms}
        return frozenset(self._until_ms)

    def put(self, lease_id: str, error: object, *, now_ms: int) -> None:
        """Leave a lease alone for a while, and say why."""
        SET_ASIDE.inc()
        log.error("lease cannot be rated; set aside", lease=lease_id, error=str(error))
        self._until_ms[lease_id] = now_ms + self._aside_ms
        if len(self._until_ms) > ASIDE_MAXIMUM:
            del self._until_ms[next(iter(self._until_ms))]


async def rate_once(store: Store, settings: BillingSettings, *, now_ms: int, aside: Aside | None = None) -> int:
    """Rate one batch; return how many leases were rated. 0 means that nothing is waiting that can be rated now."""
    aside = aside or Aside(settings)
    for _ in range(BOOK_CHANGES_MAXIMUM):
        batch = await store.read(usage.LeasesToRate(settings.currency, aside.at(now_ms)))
        for lease_id, problem in batch.unreadable:
            aside.put(lease_id, problem, now_ms=now_ms)
        lines = _rate(batch, aside, now_ms=now_ms)
        if not lines:
            return 0
        rated = await _store(store, settings, lines, batch.prices, aside, now_ms=now_ms)
        if rated is not None:
            LEASES_RATED.inc(rated)
            return rated
    return 0


def _rate(batch: usage.ToRate, aside: Aside, *, now_ms: int) -> dict[str, tuple[rating.Line, ...]]:
    lines = {}
    for lease in batch.leases:
        try:
            lines[lease.id] = rating.rate(lease, batch.prices)
        except (ValueError, ArithmeticError) as error:
            aside.put(lease.id, error, now_ms=now_ms)
    return lines


async def _store(
    store: Store,
    settings: BillingSettings,
    lines: Mapping[str, Sequence[rating.Line]],
    prices: Sequence[pricing.Price],
    aside: Aside,
    *,
    now_ms: int,
) -> int | None:
    """Store the lines of all leases at once; where that fails, one by one, and set aside those that fail alone."""

    def command(lease_ids: Sequence[str]) -> usage.StoreLines:
        return usage.StoreLines([line for lease in lease_ids for line in lines[lease]], lease_ids, settings.currency, now_ms, prices)

    try:
        return await store.run(command(list(lines)))
    except Exception:
        if len(lines) == 1:
            raise
        outcomes = await asyncio.gather(*(store.run(command([lease_id])) for lease_id in lines), return_exceptions=True)
        if all(isinstance(outcome, BaseException) for outcome in outcomes):
            raise  # it is not a lease that is wrong: nothing can be stored
        for lease_id, outcome in zip(lines, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                aside.put(lease_id, outcome, now_ms=now_ms)
        counts = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        return None if None in counts else sum(count or 0 for count in counts)


async def run(store: Store, settings: BillingSettings, stop: asyncio.Event, *, now_ms: Callable[[], int] = clock.now_ms) -> None:
    """Rate until `stop` is set. An error is logged and counted, and the batch tried again."""
    aside = Aside(settings)
    while not stop.is_set():
        pause = settings.idle_seconds
        try:
            rated = await rate_once(store, settings, now_ms=now_ms(), aside=aside)
            counted = await count_once(store, now_ms=now_ms())
            if rated or counted:
                pause = 0.0
        except Exception:
            FAILURES.inc()
            log.exception("rating failed; trying again", retry_seconds=settings.retry_seconds)
            pause = settings.retry_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()
