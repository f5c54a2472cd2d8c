"""What the API does beside answering: forgetting what is old enough, and sweeping the files of uploads.

Owns the pace: a round each minute, and once an hour the archives, whose search reads all jobs. How old is old stands in the settings
(Retention). Runs in every API process while it serves; several replicas doing the same thing do it once, because deleting a row or a file
twice is deleting it. Every delete is a bounded command of its own, so requests pass in between. An error is logged and the next round tries
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count

import structlog

from api import clock
from api.archives import Uploads
from api.settings import Retention
from store.archives import UNUSED_MAXIMUM, ForgetArchives, KnownArchives, UnusedArchives
from store.commands import Command
from store.engine import Store
from store.idempotency import PRUNE_BATCH_MAXIMUM, PruneRecords
from store.retention import LOG_BATCH_MAXIMUM, ROW_BATCH_MAXIMUM, PruneEvents, PruneLogs, PruneObservations

ROUND_SECONDS = 60.0
ARCHIVES_EVERY_ROUNDS = 60
BATCHES_MAXIMUM = 100  # of rows of one kind forgotten in one round
DAY_MS = 86_400_000

log = structlog.get_logger(__name__)


async def run(store: Store, uploads: Uploads, retention: Retention) -> None:
    """Do a round every `ROUND_SECONDS` until cancelled."""
    for number in count():
        try:
            await once(store, uploads, retention, now_ms=clock.now_ms(), with_archives=number % ARCHIVES_EVERY_ROUNDS == 0)
        except Exception:
            log.exception("upkeep failed; trying again", retry_seconds=ROUND_SECONDS)
        await asyncio.sleep(ROUND_SECONDS)


async def once(store: Store, uploads: Uploads, retention: Retention, *, now_ms: int, with_archives: bool = True) -> dict[str, int]:
    """Do one round; return how many rows of each kind were forgotten."""
    await asyncio.to_thread(uploads.sweep)
    forgotten = {}
    for name, command, batch in _commands(retention, now_ms):
        forgotten[name] = await _prune(store, command, batch)
    if with_archives:
        await _remove_strays(store, uploads)
        if retention.archive_days:
            forgotten["archives"] = await _forget_archives(store, uploads, now_ms - retention.archive_days * DAY_MS)
    return forgotten


def _commands(retention: Retention, now_ms: int) -> Iterator[tuple[str, Command[int], int]]:
    yield "answers", PruneRecords(now_ms), PRUNE_BATCH_MAXIMUM
    kinds: tuple[tuple[str, int, Callable[[int], Command[int]], int], ...] = (
        ("logs", retention.log_days, PruneLogs, LOG_BATCH_MAXIMUM),
        ("events", retention.event_days, PruneEvents, ROW_BATCH_MAXIMUM),
        ("observations", retention.observation_days, PruneObservations, ROW_BATCH_MAXIMUM),
    )
    for name, days, command, batch in kinds:
        if days:
            yield name, command(now_ms - days * DAY_MS), batch


async def _prune(store: Store, command: Command[int], batch: int) -> int:
    forgotten = 0
    for _ in range(BATCHES_MAXIMUM):
        deleted = await store.run(command)
        forgotten += deleted
        if deleted < batch:
            break
    return forgotten


async def _forget_archives(store: Store, uploads: Uploads, before_ms: int) -> int:
    gone = await store.run(ForgetArchives(await store.read(UnusedArchives(before_ms))))
    for tenant_id, sha256 in gone:
        await asyncio.to_thread(uploads.remove, tenant_id, sha256)
    return len(gone)


async def _remove_strays(store: Store, uploads: Uploads) -> None:
    """Delete files without a row: a crash came between the two, at an upload or at a removal."""
    old = await asyncio.to_thread(uploads.old_files)
    for first in range(0, len(old), UNUSED_MAXIMUM):
        some = old[first : first + UNUSED_MAXIMUM]
        for tenant_id, sha256 in set(some) - await store.read(KnownArchives(some)):
            await asyncio.to_thread(uploads.remove, tenant_id, sha256)
