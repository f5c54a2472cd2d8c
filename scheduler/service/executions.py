"""Asking the executor: which calls are due, at most one under way per lease, and what came of them.

Owns the pacing (retries, repeated stops, how often status is asked) in memory only: a new leader asks everything again, which executors
take (executors/base.py). Does not own the intent, which is committed before (reconcile.py), or what a status means (transitions.py). Calls
run beside the cycle, each with a deadline, so one that hangs holds up nobody. Every limit is in the settings or named here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from domain.states import LeaseEndCause
from executors.base import Executor, FatalError, Handle, Order, Phase, RetryError, Status
from scheduler.service import metrics, reconcile, transitions
from scheduler.service.reconcile import Call
from scheduler.service.settings import SchedulerSettings
from store.jobs import canonical
from store.leases import Change, OpenLease

CALLS_MAXIMUM = 64  # under way at once
FAILED_CALL_DELAY_MS = 1_000  # after an error that names no delay, or no answer in time

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round of calls brought: handles to keep, as JSON by lease, and changes that follow."""

    handles: Mapping[str, str]
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class _Pause:
    """No call of this kind for a lease before `until_seconds` of the stopwatch."""

    call: Call
    until_seconds: float


@dataclass
class Executions:
    """The executor and what this leader asked of it."""

    executor: Executor
    settings: SchedulerSettings
    stopwatch: Callable[[], float] = time.monotonic
    _calls: dict[str, tuple[Call, asyncio.Task[Handle | None]]] = field(default_factory=dict)
    _pauses: dict[str, _Pause] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)  # forgotten by the executor although they shall run: to be started again
    _stopped: set[str] = field(default_factory=set)  # the executor took our stop, so that no start can come after what it says now
    _status: asyncio.Task[Mapping[str, Status]] | None = None
    _status_asked_seconds: float | None = None

    @property
    def under_way(self) -> list[asyncio.Task[Handle | None]]:
        """Calls that have not answered: one that does is worth a cycle."""
        return [task for _, task in self._calls.values()]

    async def drive(self, leases: Sequence[OpenLease], *, now_ms: int, is_caught_up: bool = True) -> Outcome:
        """Make the calls that are due for these open leases and return what has come of calls so far.

        Without `is_caught_up`, observations are waiting that know more than a status does, and nothing follows from a status.
        """
        by_id = {lease.id: lease for lease in leases}
        self._forget_all_but(by_id)
        handles: dict[str, str] = {}
        changes: dict[str, Change] = {}
        self._harvest(by_id, handles, changes, now_ms)
        due = deque(lease for lease in leases if lease.id not in handles and lease.id not in changes)
        while due and len(self._calls) < CALLS_MAXIMUM:
            new = []
            while due and len(self._calls) < CALLS_MAXIMUM:
                new += self._launch(due.popleft())
            if new:
                await asyncio.wait(new, timeout=self.settings.call_patience_ms / 1_000)
                self._harvest(by_id, handles, changes, now_ms)
        if is_caught_up:
            for change in await self._ask_status(leases, now_ms):
                changes.setdefault(change.lease_id, change)
        return Outcome(handles, list(changes.values()))

    def _forget_all_but(self, leases: Mapping[str, OpenLease]) -> None:
        for lease_id in (self._pauses.keys() | self._absent | self._stopped) - leases.keys():
            self._pauses.pop(lease_id, None)
            self._absent.discard(lease_id)
            self._stopped.discard(lease_id)

    def _launch(self, lease: OpenLease) -> list[asyncio.Task[Handle | None]]:
        """Start the call that is due for a lease; return its task, nothing when none is due."""
        call = Call.START if lease.id in self._absent and lease.target == "run" else reconcile.call_due(lease)
        if call is None or lease.id in self._calls or self._is_paused(lease.id, call):
            return []
        task = asyncio.create_task(self._call(call, order_of(lease)))
        self._calls[lease.id] = (call, task)
        return [task]

    def _is_paused(self, lease_id: str, call: Call) -> bool:
        pause = self._pauses.get(lease_id)
        return pause is not None and pause.call is call and self.stopwatch() < pause.until_seconds

    def _pause(self, lease_id: str, call: Call, delay_ms: int) -> None:
        self._pauses[lease_id] = _Pause(call, self.stopwatch() + delay_ms / 1_000)

    async def _call(self, call: Call, order: Order) -> Handle | None:
        async with asyncio.timeout(self.settings.call_ms_maximum / 1_000):
            if call is Call.START:
                return await self.executor.start(order)
            await self.executor.stop(order)
            return None

    def _harvest(self, leases: Mapping[str, OpenLease], handles: dict[str, str], changes: dict[str, Change], now_ms: int) -> None:
        for lease_id, (call, task) in [(lease_id, pair) for lease_id, pair in self._calls.items() if pair[1].done()]:
            del self._calls[lease_id]
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            metrics.CALLS.labels(call.value, "done" if error is None else "failed").inc()
            if error is not None:
                self._failed(leases.get(lease_id), call, error, changes, now_ms)
                self._pause(lease_id, call, error.delay_ms if isinstance(error, RetryError) else FAILED_CALL_DELAY_MS)
            elif call is Call.START:
                handles[lease_id] = canonical(task.result())
                self._absent.discard(lease_id)
                self._pauses.pop(lease_id, None)
            else:
                self._stopped.add(lease_id)
                self._pause(lease_id, call, self.settings.stop_again_ms)

    @staticmethod
    def _failed(lease: OpenLease | None, call: Call, error: BaseException, changes: dict[str, Change], now_ms: int) -> None:
        if lease is None:
            return
        if isinstance(error, FatalError) and call is Call.START and lease.target == "run":
            told = str(error)[: transitions.MESSAGE_LENGTH_MAXIMUM]
            log.error("a lease cannot be started; it is stopped", lease=lease.id, error=told)
            changes[lease.id] = reconcile.stop(lease, LeaseEndCause.NEVER_STARTED, now_ms=now_ms, message=told)
        else:
            log.warning("the executor did not do what was asked; it is asked again", lease=lease.id, call=call.value, error=repr(error))

    async def _ask_status(self, leases: Sequence[OpenLease], now_ms: int) -> list[Change]:
        """Return what follows from the newest answer; ask anew when the last is old enough."""
        asked_seconds = self._status_asked_seconds
        is_due = asked_seconds is None or self.stopwatch() - asked_seconds >= self.settings.status_every_ms / 1_000
        if self._status is None and is_due:
            orders = [order_of(lease) for lease in leases if self._is_worth_asking(lease)]
            self._status_asked_seconds = self.stopwatch()
            if orders:
                self._status = asyncio.create_task(self._statuses(orders))
                await asyncio.wait([self._status], timeout=self.settings.call_patience_ms / 1_000)
        if self._status is None or not self._status.done():
            return []
        answered, self._status = self._status, None
        error = asyncio.CancelledError() if answered.cancelled() else answered.exception()
        if error is not None:
            log.warning("the executor gives no status", error=repr(error))
            return []
        return self._follow(leases, answered.result(), now_ms)

    def _is_worth_asking(self, lease: OpenLease) -> bool:
        """A lease that shall stop is asked about once the executor took the stop: before that, a start may still be on its way."""
        if lease.id in self._calls:
            return False
        return lease.id in self._stopped if lease.target == "stop" else lease.handle is not None

    async def _statuses(self, orders: Sequence[Order]) -> Mapping[str, Status]:
        async with asyncio.timeout(self.settings.call_ms_maximum / 1_000):
            return await self.executor.status(orders)

    def _follow(self, leases: Sequence[OpenLease], statuses: Mapping[str, Status], now_ms: int) -> list[Change]:
        changes = []
        for lease in leases:
            status = statuses.get(lease.id)
            if status is None:
                continue
            if status.phase is Phase.ABSENT and lease.target == "run" and lease.running_at_ms is None:
                self._absent.add(lease.id)  # the executor forgot what it started, or somebody removed it: start it again
            seen = transitions.sighting(lease, status, now_ms=now_ms)
            if seen is not None:
                changes.append(replace(transitions.follow(lease, seen, now_ms=now_ms), observation_ids=()))
                self._status_asked_seconds = None  # one thing at a time: what the status says beyond it follows in the next cycle
        return changes

    def forget(self) -> None:
        """Drop everything: this process leads no more. Calls under way are cancelled; the next leader asks them again."""
        for task in [*self.under_way, *([self._status] if self._status is not None else [])]:
            task.cancel()
        self._calls.clear()
        self._pauses.clear()
        self._absent.clear()
        self._stopped.clear()
        self._status = self._status_asked_seconds = None


def order_of(lease: OpenLease) -> Order:
    """Return an open lease as an executor sees it."""
    return Order(
        lease_id=lease.id,
        tenant_id=lease.tenant_id,
        job_id=lease.job_id,
        attempt=lease.attempt,
        nodes=tuple(part.node for part in lease.parts),
        limit_ms=lease.limit_ms,
        grace_ms=lease.grace_ms,
        handle=None if lease.handle is None else json.loads(lease.handle),
    )
