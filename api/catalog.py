"""The catalog that submits are checked against, kept for a moment in this process.

Owns the ages. An acceptance may rest on a catalog as old as `catalog_seconds`; a refusal never does: api/submission.py asks again with
`is_fresh` before it refuses. Foreign keys in the database hold whatever the age.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from typing import TypeVar
from weakref import WeakValueDictionary

from api import clock
from api.settings import ApiSettings
from store.catalog import FleetCatalog, ReadFleetCatalog, ReadTenantCatalog, TenantCatalog
from store.engine import Store
from store.job_reads import OpenJobs

T = TypeVar("T")
TENANTS_MAXIMUM = 10_000


class Catalogs:
    """The newest catalogs that this process has read, and how many jobs each tenant has open."""

    def __init__(self, store: Store, settings: ApiSettings) -> None:
        self._store = store
        self._seconds = settings.catalog_seconds
        self._open_jobs_maximum = settings.open_jobs_maximum
        self._fleet: tuple[float, FleetCatalog] | None = None
        self._tenants: OrderedDict[str, tuple[float, TenantCatalog]] = OrderedDict()
        self._open_jobs: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._on_their_way: Counter[str] = Counter()
        self._counting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fleet(self, *, is_fresh: bool = False) -> FleetCatalog:
        """Return the fleet's part."""
        now = time.monotonic()
        if self._fleet is None or is_fresh or now - self._fleet[0] >= self._seconds:
            self._fleet = (now, await self._store.read(ReadFleetCatalog()))
        return self._fleet[1]

    async def tenant(self, tenant_id: str, *, is_fresh: bool = False) -> TenantCatalog:
        """Return the part of one tenant."""
        now = time.monotonic()
        known = self._tenants.get(tenant_id)
        if known is None or is_fresh or now - known[0] >= self._seconds:
            known = (now, await self._store.read(ReadTenantCatalog(tenant_id, clock.now_ms())))
            _keep(self._tenants, tenant_id, known)
        return known[1]

    async def reserve_jobs(self, tenant_id: str, new_jobs: int) -> bool:
        """Say whether the tenant may have `new_jobs` more open, and count them from now on; the caller settles them once they are durable.

        Counted anew every `catalog_seconds`; exact but for what ended, and what other replicas accepted, since. What is on its way to the
        database while it is counted may count twice until the next time, never not at all.
        """
        known = self._open_jobs.get(tenant_id)
        if known is None or time.monotonic() - known[0] >= self._seconds:
            lock = self._counting.setdefault(tenant_id, asyncio.Lock())
            async with lock:
                known = self._open_jobs.get(tenant_id)
                if known is None or time.monotonic() - known[0] >= self._seconds:
                    known = await self._count_jobs(tenant_id)
        total = known[1] + new_jobs  # from here on nothing else runs in between, so requests at once see one another
        if total > self._open_jobs_maximum:
            return False
        _keep(self._open_jobs, tenant_id, (known[0], total))
        self._on_their_way[tenant_id] += new_jobs
        return True

    def settle_jobs(self, tenant_id: str, new_jobs: int) -> None:
        """Forget what was reserved: it is in the database now, or refused."""
        self._on_their_way[tenant_id] -= new_jobs
        if not self._on_their_way[tenant_id]:
            del self._on_their_way[tenant_id]

    async def _count_jobs(self, tenant_id: str) -> tuple[float, int]:
        now, on_their_way = time.monotonic(), self._on_their_way[tenant_id]
        known = (now, on_their_way + await self._store.read(OpenJobs(tenant_id, self._open_jobs_maximum)))
        _keep(self._open_jobs, tenant_id, known)
        return known


def _keep(kept: OrderedDict[str, T], key: str, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > TENANTS_MAXIMUM:
        kept.popitem(last=False)
