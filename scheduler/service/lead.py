"""The lead: taken, renewed while a cycle may be long, lost and given up; and the stamps that never go backwards.

Owns the fence of this process and when it is renewed. The rows are store/leader.py's. A term is compared on the clocks of two machines, so
these must agree within a third of it (settings.term_ms). The loop asks before every cycle; `keep` renews beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from scheduler.service import clock
from scheduler.service.settings import SchedulerSettings
from store.engine import Store
from store.leader import Fence, GiveUpLead, LastStamp, MayLead, TakeLead
from store.observations import SilentNodes

LEADER = "scheduler"
RENEWALS_PER_TERM = 3

log = structlog.get_logger(__name__)


@dataclass
class Lead:
    """The fence of one process, None while it does not lead."""

    store: Store
    holder: str
    settings: SchedulerSettings
    now_ms: Callable[[], int]
    stopwatch: Callable[[], float]
    fence: Fence | None = None
    _renewed_seconds: float = 0.0
    _stamped_ms: int = 0

    def stamp(self) -> int:
        """Return the time of a cycle. What is decided holds at the time that is stamped, so both stand still while a clock that was put
        back catches up.
        """
        self._stamped_ms = max(self.now_ms(), self._stamped_ms)
        return self._stamped_ms

    async def hold(self) -> Fence | None:
        """Return the fence to write under, renewed or taken where that is due; None while another process leads."""
        now_ms, term_ms = self.now_ms(), self.settings.term_ms
        if self.fence is not None and self.stopwatch() - self._renewed_seconds < term_ms / 1_000 / RENEWALS_PER_TERM:
            return self.fence
        if self.fence is None and not await self.store.read(MayLead(LEADER, self.holder, now_ms, term_ms)):
            return None
        fence = await self._take()
        if fence is not None:
            await self.store.run(SilentNodes(fence, now_ms, self.settings.node_lost_after_ms))
            self._stamped_ms = max(self._stamped_ms, await self.store.read(LastStamp(LEADER)))
        return fence

    async def _take(self) -> Fence | None:
        self._renewed_seconds = self.stopwatch()
        self.fence = await self.store.run(self._claim())
        return self.fence

    def _claim(self) -> TakeLead:
        return TakeLead(LEADER, self.holder, self.now_ms(), self.settings.term_ms)

    async def keep(self, stop: asyncio.Event) -> None:
        """Renew the lead until `stop`, also while a cycle lasts longer than a term."""
        while not stop.is_set():
            await clock.pause(stop, self.settings.term_ms / 1_000 / RENEWALS_PER_TERM)
            if not stop.is_set():
                await self._renew()

    async def _renew(self) -> None:
        fence = self.fence
        if fence is None:
            return
        try:
            renewed = await self.store.run(self._claim())
        except Exception:
            log.exception("the lead was not renewed; it is tried again")
            return
        if renewed != fence:
            log.warning("another scheduler has taken the lead, or it lay free for a while")  # the cycle's own writes are refused

    def lost(self) -> None:
        """Say that another process leads."""
        self.fence = None

    async def give_up(self) -> None:
        """Let another take over at once."""
        fence, self.fence = self.fence, None
        if fence is None:
            return
        try:
            await self.store.run(GiveUpLead(fence))
        except Exception:
            log.exception("the lead was not given up; another scheduler takes over after the term", term_ms=self.settings.term_ms)
