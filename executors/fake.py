"""Leases that run in the caller's clock: nothing is started, and everything is reported as an agent would report it.

For tests, and as the null launcher of benchmarks: what is measured then is ours alone. A script says how long a lease takes and how it
ends; `advance` reports what has happened by now through `store.run`, at the exact times of the script, in the order in which it happened.
It stands for the world, so keep one while schedulers come and go. It also plays what happens to machines: a node that falls silent, an
agent that restarts. Owns no rows. Ended leases are remembered up to `REMEMBERED_MAXIMUM`, so that a late start of one starts nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from domain.states import FailureClass
from executors.base import FatalError, Handle, Order, Phase, Status
from store.agent_reports import AcceptReports, Seen
from store.engine import Store

REMEMBERED_MAXIMUM = 100_000
REPORTS_MAXIMUM = 1_000  # in one command
BOOT = "fake-boot"  # observations are named by node, boot and number


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of a lease. Its time limit and its stop end it earlier; `stop_ms` is at most the grace."""

    start_ms: int = 0  # from the order to the entrypoint
    duration_ms: int = 0  # of the entrypoint
    exit_code: int | None = 0
    failure_class: str | None = None
    message: str | None = None
    stop_ms: int = 0  # from the notice to the exit
    stop_exit_code: int = 143  # of an entrypoint that was given notice
    idle_ms: int = 0  # from the exit to the proof that nothing is left


@dataclass(slots=True)
class _Run:
    """One lease: when things happen, and what was reported of them."""

    order: Order
    script: Script
    ordered_ms: int
    stopped_ms: int | None = None
    lost_ms: int | None = None
    told: set[tuple[str, str]] = field(default_factory=set)  # (kind, node)

    @property
    def started_ms(self) -> int | None:
        """When the entrypoint starts, None when something ends the lease before."""
        at_ms = self.ordered_ms + self.script.start_ms
        return None if any(end is not None and end < at_ms for end in (self.stopped_ms, self.lost_ms)) else at_ms

    def ending(self) -> tuple[int, str, Mapping[str, object]]:
        """Return when and how it ends, as an agent says it: `exited` or `lost`, with its data."""
        ends = [self._own_end()]  # of two things at one time the first in this list happens
        if self.lost_ms is not None:
            ends.append((self.lost_ms, "lost", {"message": "the node's agent was restarted and its leases ended with it"}))
        if self.started_ms is not None:
            over_ms = self.started_ms + self.order.limit_ms
            notice_ms = min(self.script.stop_ms, self.order.grace_ms)
            code, failure = self.script.stop_exit_code, FailureClass.TIME_LIMIT.value
            told: Mapping[str, object] = {"exit_code": code, "failure_class": failure, "message": "the time limit was reached"}
            ends.append((over_ms + notice_ms, "exited", told))
        if self.stopped_ms is not None:
            ends.append(self._stopped_end(self.stopped_ms))
        return min(ends, key=lambda end: end[0])

    def _own_end(self) -> tuple[int, str, Mapping[str, object]]:
        script = self.script
        told = {"exit_code": script.exit_code, "failure_class": script.failure_class, "message": script.message}
        return self.ordered_ms + script.start_ms + script.duration_ms, "exited", told

    def _stopped_end(self, stopped_ms: int) -> tuple[int, str, Mapping[str, object]]:
        if self.started_ms is None:
            return stopped_ms, "exited", {"failure_class": FailureClass.PLATFORM.value, "message": "stopped before it was started"}
        told = {"exit_code": self.script.stop_exit_code, "message": "stopped on request"}
        return stopped_ms + min(self.script.stop_ms, self.order.grace_ms), "exited", told

    @property
    def gone_ms(self) -> int:
        """When nothing of it is left."""
        at_ms, kind, _ = self.ending()
        return at_ms + (0 if kind == "lost" else self.script.idle_ms)

    def happened(self, now_ms: int) -> list[tuple[int, str, str, Mapping[str, object]]]:
        """Return (time, node, kind, data) of what has happened by `now_ms`, in order."""
        head, ended = self.order.nodes[0], self.ending()
        things: list[tuple[int, str, str, Mapping[str, object]]] = []
        if self.started_ms is not None:
            things.append((self.started_ms, head, "started", {}))
        things.append((ended[0], head, *ended[1:]))
        things += [(self.gone_ms, node, "gone", {}) for node in self.order.nodes]
        return [thing for thing in things if thing[0] <= now_ms]


class FakeExecutor:
    """Runs leases by script. `script` is asked once per lease, at its start."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int], script: Callable[[Order], Script] = lambda _: Script()) -> None:
        self._store = store
        self._now_ms = now_ms
        self._script = script
        self._runs: dict[str, _Run] = {}
        self._over: dict[str, Status] = {}  # leases that were stopped before they were started, or are gone; oldest first
        self._silent: set[str] = set()
        self._waiting: dict[tuple[str, str], Order] = {}  # words for silent nodes, by lease and word
        self._sequence = itertools.count(1)

    async def start(self, order: Order, /) -> Handle:
        """Begin the lease's script, once; FatalError when it names no node."""
        if not order.nodes:
            raise FatalError(f"lease {order.lease_id} names no node")
        self._say("start", order)
        return {"executor": "fake", "lease": order.lease_id}

    async def stop(self, order: Order, /) -> None:
        """Give notice to the lease. One that was never started never will be."""
        self._say("stop", order)

    def _say(self, word: str, order: Order) -> None:
        """Do it now, or, for a node that is cut off, when it is heard again."""
        if self._silent.intersection(order.nodes):
            self._waiting[order.lease_id, word] = order
        elif word == "start":
            if order.lease_id not in self._runs and order.lease_id not in self._over:
                self._runs[order.lease_id] = _Run(order, self._script(order), self._now_ms())
        elif order.lease_id not in self._runs:
            self._remember_over(order.lease_id, Status(Phase.GONE))
        elif self._runs[order.lease_id].stopped_ms is None:
            self._runs[order.lease_id].stopped_ms = self._now_ms()

    async def status(self, orders: Sequence[Order], /) -> Mapping[str, Status]:
        """Return what `advance` would report by now, or has reported."""
        return {
            order.lease_id: Status(Phase.OUT_OF_SIGHT) if self._silent.intersection(order.nodes) else self._status(order.lease_id)
            for order in orders
        }

    def _status(self, lease_id: str) -> Status:
        run = self._runs.get(lease_id)
        if run is None:
            return self._over.get(lease_id, Status(Phase.ABSENT))
        times = {kind: (at_ms, data) for at_ms, _, kind, data in run.happened(self._now_ms())}
        ended_ms, told = times.get("exited") or times.get("lost") or (None, {})
        started_ms, gone_ms = (times[kind][0] if kind in times else None for kind in ("started", "gone"))
        phase = Phase.STARTING if started_ms is None else Phase.RUNNING
        if ended_ms is not None:
            phase = Phase.EXITED if gone_ms is None else Phase.GONE
        failure = FailureClass.NODE.value if "lost" in times else told.get("failure_class")
        return Status(phase, started_ms, ended_ms, gone_ms, told.get("exit_code"), failure, told.get("message"))  # type: ignore[arg-type]  # a script's own values

    @property
    def live(self) -> tuple[Order, ...]:
        """Leases of which something may be left now, whoever knows of it."""
        return tuple(run.order for run in self._runs.values() if run.ordered_ms <= self._now_ms() < run.gone_ms)

    @property
    def running(self) -> tuple[Order, ...]:
        """Leases whose entrypoint runs now or may still be started, whoever knows of it."""
        return tuple(run.order for run in self._runs.values() if run.ordered_ms <= self._now_ms() < run.ending()[0])

    async def advance(self) -> int:
        """Report what has happened by now and was not reported yet; return how many reports that made. Silent nodes report later."""
        now_ms = self._now_ms()
        due: dict[str, list[tuple[_Run, Seen]]] = {}
        for run in self._runs.values():
            for at_ms, node, kind, data in run.happened(now_ms):
                if (kind, node) not in run.told and node not in self._silent:
                    due.setdefault(node, []).append((run, Seen(next(self._sequence), kind, run.order.lease_id, at_ms, data)))
        for node in sorted(due):
            await self._report(node, sorted(due[node], key=lambda item: item[1].observed_at_ms), now_ms)
        for run in [run for run in self._runs.values() if run.told.issuperset(("gone", node) for node in run.order.nodes)]:
            self._remember_over(run.order.lease_id, self._status(run.order.lease_id))
            del self._runs[run.order.lease_id]
        return sum(len(things) for things in due.values())

    async def _report(self, node: str, things: Sequence[tuple[_Run, Seen]], now_ms: int) -> None:
        for first in range(0, len(things), REPORTS_MAXIMUM):
            batch = things[first : first + REPORTS_MAXIMUM]
            seen = [item for _, item in batch]
            await self._store.run(AcceptReports(node, BOOT, seen, [], now_ms, log_bytes_per_attempt_maximum=0))
            for run, item in batch:
                run.told.add((item.kind, node))

    def _remember_over(self, lease_id: str, status: Status) -> None:
        self._over.setdefault(lease_id, status)
        while len(self._over) > REMEMBERED_MAXIMUM:
            del self._over[next(iter(self._over))]

    def silence(self, node: str) -> None:
        """Cut the node off: its leases go on, nobody hears of it, and it hears of nothing."""
        self._silent.add(node)

    def reconnect(self, node: str) -> None:
        """Let a silent node be heard again: what waited on either side is told."""
        self._silent.discard(node)
        waiting, self._waiting = self._waiting, {}
        for (_, word), order in waiting.items():
            self._say(word, order)

    def restart(self, node: str) -> None:
        """Bring the node's agent back after a restart: its leases are lost, and what waited is told."""
        for run in self._runs.values():
            if node in run.order.nodes and run.gone_ms > self._now_ms() and run.lost_ms is None:
                run.lost_ms = self._now_ms()
        self.reconnect(node)
