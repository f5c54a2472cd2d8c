"""The catalog that submits are checked against, kept for a moment in this process.

Owns the ages. An acceptance may rest on a catalog as old as `catalog_seconds`; a refusal never does: api/submission.py asks again with
`is_fresh` before it refuses. Foreign keys in the database hold whatever the age.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TypeVar

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

    async def count_open_jobs(self, tenant_id: str, new_jobs: int) -> int:
        """Return how many jobs the tenant would have open with `new_jobs` more, and count them as accepted from now on.

        Counted anew every `catalog_seconds`; exact but for what ended, and what other replicas accepted, since.
        """
        now = time.monotonic()
        known = self._open_jobs.get(tenant_id)
        if known is None or now - known[0] >= self._seconds:
            counted = await self._store.read(OpenJobs(tenant_id, self._open_jobs_maximum))
            known = (now, counted)
        total = known[1] + new_jobs
        if total <= self._open_jobs_maximum:
            _keep(self._open_jobs, tenant_id, (known[0], total))
        return total


def _keep(kept: OrderedDict[str, T], key: str, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > TENANTS_MAXIMUM:
        kept.popitem(last=False)
