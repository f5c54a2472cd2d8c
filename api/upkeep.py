"""What the API does beside answering: forgetting idempotency records that are old enough, and sweeping interrupted uploads.

Owns the pace. Runs in every API process while it serves; several replicas doing the same thing do it once, because deleting a row or a
file twice is deleting it. An error is logged and the next round tries again.
"""

from __future__ import annotations

import asyncio

import structlog

from api import clock
from api.archives import Uploads
from store.engine import Store
from store.idempotency import PRUNE_BATCH_MAXIMUM, PruneRecords

ROUND_SECONDS = 60.0
BATCHES_MAXIMUM = 100  # of records forgotten in one round

log = structlog.get_logger(__name__)


async def run(store: Store, uploads: Uploads) -> None:
    """Do a round every `ROUND_SECONDS` until cancelled."""
    while True:
        try:
            await once(store, uploads, now_ms=clock.now_ms())
        except Exception:
            log.exception("upkeep failed; trying again", retry_seconds=ROUND_SECONDS)
        await asyncio.sleep(ROUND_SECONDS)


async def once(store: Store, uploads: Uploads, *, now_ms: int) -> int:
    """Do one round; return how many idempotency records were forgotten."""
    await asyncio.to_thread(uploads.sweep)
    forgotten = 0
    for _ in range(BATCHES_MAXIMUM):
        count = await store.run(PruneRecords(now_ms))
        forgotten += count
        if count < PRUNE_BATCH_MAXIMUM:
            break
    return forgotten
