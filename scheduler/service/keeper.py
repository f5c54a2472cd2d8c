"""Keeps the live view equal to the rows: builds it once, then tells it what others and this process changed.

Owns when which rows are read. Does not own what the view makes of them (index.py) or any decision. News of others comes by the event feed:
jobs that were submitted or cancelled are read by name, quotas as a whole when their mark moved; when nodes or devices did, everything is
built anew, which is rare. A process that has just taken the lead builds from scratch, because only the leader changes what the feed does
not tell. The loop calls it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from quotas.decay import Memory
from scheduler.decision.snapshot import Policy
from scheduler.service.index import Index
from store.engine import Store
from store.events import NewestEvent
from store.feed import NewsAfter
from store.leases import OpenLeases, OpenLeasesOf
from store.scheduling import LoadJobs, LoadRows, LoadTerms


@dataclass
class Keeper:
    """One live view of one database."""

    store: Store
    policy: Policy
    _index: Index | None = None

    def drop(self) -> None:
        """Forget the view: the next `catch_up` builds it from rows."""
        self._index = None

    @property
    def index(self) -> Index | None:
        """The view as it was left, None when it was dropped."""
        return self._index

    async def catch_up(self, now_ms: int) -> Index:
        """Return the view with everything that others changed by now."""
        if self._index is None:
            return await self._build(now_ms)
        index = self._index
        index.pass_time(now_ms)
        news = await self.store.read(NewsAfter(index.cursor))
        if news.fleet_mark != index.fleet.mark:  # devices may have been numbered anew, and every lease names some
            return await self._build(now_ms, memory=index.memory)
        edge_ms = index.terms.changes_at_ms
        if news.terms_mark != index.terms.mark or (edge_ms is not None and edge_ms <= now_ms):
            index.change_terms(await self.store.read(LoadTerms(now_ms, self.policy)), now_ms)
        await self.refresh(news.job_ids)
        index.cursor = news.cursor
        return index

    async def _build(self, now_ms: int, memory: Memory | None = None) -> Index:
        # The cursor first: what comes between two of these reads is told again, and that does no harm.
        cursor = await self.store.read(NewestEvent())
        rows = await self.store.read(LoadRows(now_ms, self.policy))
        rows = rows if memory is None else replace(rows, memory=memory)
        version = 0 if self._index is None else self._index.version + 1  # whoever decided on the view before sees that this is another
        self._index = Index.of(rows, await self.store.read(OpenLeases()), cursor)
        self._index.version += version
        return self._index

    async def refresh(self, job_ids: Collection[str]) -> None:
        """Make what the view knows of these jobs equal to their rows."""
        if not job_ids or self._index is None:
            return
        named = sorted(job_ids)
        work = await self.store.read(LoadJobs(named, self._index.known_classes))
        leases = await self.store.read(OpenLeasesOf(named))
        self._index.refresh(named, work, leases)
