"""The live loop: load -> decide -> apply, for as long as this process leads.

A cycle applies what agents saw, takes one reconciling step per open lease, decides on a snapshot read from rows, binds the plan's starts
in one guarded transaction, and then asks the executor. Intent is committed before any effect and every effect is named by its lease, so
a cycle that breaks off anywhere is simply done again. It wakes when the database changes, coalesces what came meanwhile, and looks at the
clock once a second. Open leases and the queue are read anew in every cycle, which is simple and costs in proportion to them; an index
that events keep up to date replaces it when fleets grow. The composition root runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from executors.base import Executor
from executors.nodes import NodesExecutor
from scheduler.decision import decide as core
from scheduler.decision.plan import ClassReason, Forecast, Plan, Start
from scheduler.decision.snapshot import ClassKey
from scheduler.service import clock, metrics, observe, reconcile
from scheduler.service.executions import Executions
from scheduler.service.forecasts import Forecaster
from scheduler.service.settings import SchedulerSettings
from store.engine import Store
from store.errors import StaleError
from store.executions import RecordHandles
from store.jobs import canonical
from store.leader import Fence, GiveUpLead, LastStamp, MayLead, TakeLead
from store.leases import AnswerClasses, ApplyChanges, BindStarts, Change, ClassAnswer, OpenLease, OpenLeases, SliceToBind, StartToBind
from store.observations import SilentNodes
from store.scheduling import Loaded, LoadSnapshot

LEADER = "scheduler"

log = structlog.get_logger(__name__)


@dataclass
class Loop:
    """One scheduler process. `step` does one cycle and is what tests drive; `run` repeats it until `stop`."""

    store: Store
    executor: Executor
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    holder: str = field(default_factory=lambda: clock.new_id("sch"))
    now_ms: Callable[[], int] = clock.now_ms
    new_id: Callable[[str], str] = clock.new_id
    new_token: Callable[[], str] = clock.new_token
    stopwatch: Callable[[], float] = time.monotonic
    fence: Fence | None = None
    _renewed_seconds: float = 0.0
    _stamped_ms: int = 0
    _executions: Executions = field(init=False)
    _forecaster: Forecaster = field(init=False)

    def __post_init__(self) -> None:
        self._executions = Executions(self.executor, self.settings, self.stopwatch)
        self._forecaster = Forecaster(self.settings, self.stopwatch)

    async def run(self, stop: asyncio.Event) -> None:
        """Repeat cycles until `stop`; an error is logged and the cycle tried again. Gives up the lead at the end."""
        mark = -1
        while not stop.is_set():
            try:
                mark = self.store.change_mark()
                await self.step()
            except StaleError:
                log.warning("another scheduler leads now")
                self._lost_lead()
            except Exception:
                metrics.FAILURES.inc()
                log.exception("the cycle failed; trying again", retry_ms=self.settings.retry_ms)
                await _sleep(stop, self.settings.retry_ms / 1_000)
                continue
            await self._wait(stop, mark)
        if self.fence is not None:
            fence = self.fence
            self._lost_lead()
            try:
                await self.store.run(GiveUpLead(fence))
            except Exception:
                log.exception("the lead was not given up; another scheduler takes over after the term", term_ms=self.settings.term_ms)

    async def step(self) -> bool:
        """Do one cycle; return False when another process leads. StaleError when the lead was lost half-way: nothing more was written."""
        fence = await self._lead()
        if fence is None:
            return False
        with metrics.CYCLE_SECONDS.time():
            # What is decided holds at the time that is stamped, so both stand still while a clock that was put back catches up.
            now_ms = self._stamped_ms = max(self.now_ms(), self._stamped_ms)
            applied = await observe.apply_observations(self.store, fence, now_ms=now_ms)
            metrics.OBSERVATIONS.inc(applied.count)
            leases = await self._reconcile(fence, now_ms)
            loaded = await self.store.read(LoadSnapshot(now_ms, self.settings.policy))
            with metrics.DECIDE_SECONDS.time():
                plan = await asyncio.to_thread(core.decide, loaded.snapshot)
            bound = await self._bind(fence, loaded, plan, now_ms)
            await self._execute(fence, [*leases, *bound], now_ms, is_caught_up=applied.is_caught_up)
            await self._answer(fence, loaded, plan, now_ms)
        return True

    async def _lead(self) -> Fence | None:
        """Return the fence to write under, renewed or taken where that is due; None while another process leads."""
        now_ms, term_ms = self.now_ms(), self.settings.term_ms
        if self.fence is not None and self.stopwatch() - self._renewed_seconds < term_ms / 3_000:
            return self.fence
        if self.fence is None and not await self.store.read(MayLead(LEADER, self.holder, now_ms, term_ms)):
            return None
        self._renewed_seconds = self.stopwatch()
        fence = await self.store.run(TakeLead(LEADER, self.holder, now_ms, term_ms))
        if fence != self.fence:
            self._lost_lead()
        if fence is not None:
            await self.store.run(SilentNodes(fence, now_ms, self.settings.node_lost_after_ms))
            self._stamped_ms = max(self._stamped_ms, await self.store.read(LastStamp(LEADER)))
        self.fence = fence
        metrics.LEADING.set(0 if fence is None else 1)
        return fence

    def _lost_lead(self) -> None:
        self.fence = None
        self._executions.forget()
        metrics.LEADING.set(0)
        metrics.QUEUED.clear()
        metrics.OPEN_LEASES.set(0)
        metrics.OVERDUE.set(0)

    async def _reconcile(self, fence: Fence, now_ms: int) -> list[OpenLease]:
        """Write down which leases shall stop; return the open leases as they are then."""
        deadlines = reconcile.Deadlines(self.settings.start_deadline_ms, self.settings.overrun_ms)
        leases = await self.store.read(OpenLeases())
        changes = {lease.id: change for lease in leases if (change := reconcile.step(lease, deadlines, now_ms=now_ms)) is not None}
        await self._apply(fence, list(changes.values()), now_ms)
        metrics.OPEN_LEASES.set(len(leases))
        metrics.OVERDUE.set(sum(1 for lease in leases if reconcile.is_overdue(lease, now_ms=now_ms)))
        return [replace(lease, **changes[lease.id].lease) if lease.id in changes else lease for lease in leases]

    async def _apply(self, fence: Fence, changes: Sequence[Change], now_ms: int) -> None:
        if not changes:
            return
        await self.store.run(ApplyChanges(fence, changes, now_ms))
        for change in changes:
            if "stop_cause" in change.lease:
                metrics.STOPS.labels(change.lease["stop_cause"]).inc()

    async def _bind(self, fence: Fence, loaded: Loaded, plan: Plan, now_ms: int) -> Sequence[OpenLease]:
        """Bind the plan's starts; return the leases that came of them."""
        if not plan.starts:
            return ()
        starts = [self._to_bind(start, loaded) for start in plan.starts]
        bound = await self.store.run(BindStarts(fence, starts, now_ms))
        metrics.STARTS.inc(len(bound))
        metrics.STALE_STARTS.inc(len(starts) - len(bound))
        return await self.store.read(OpenLeases(bound))

    async def _execute(self, fence: Fence, leases: Sequence[OpenLease], now_ms: int, *, is_caught_up: bool) -> None:
        outcome = await self._executions.drive(leases, now_ms=now_ms, is_caught_up=is_caught_up)
        if outcome.handles:
            await self.store.run(RecordHandles(fence, outcome.handles, now_ms))
        await self._apply(fence, outcome.changes, now_ms)

    def _to_bind(self, start: Start, loaded: Loaded) -> StartToBind:
        slices = tuple(
            SliceToBind(item.replica, loaded.node_ids[item.node], loaded.device_ids[item.node, item.device_index], item.milli_gpu)
            for item in start.slices
        )
        return StartToBind(
            lease_id=self.new_id("lea"),
            token=self.new_token(),
            job_id=start.job,
            attempt=start.attempt,
            flavor=start.flavor,
            milli_gpu=sum(item.milli_gpu for item in start.slices),
            slices=slices,
            node_ids=tuple(loaded.node_ids[node] for node in start.nodes),
        )

    async def _answer(self, fence: Fence, loaded: Loaded, plan: Plan, now_ms: int) -> None:
        forecasts = await self._forecaster.newest(loaded, plan)
        _count_queue(loaded, plan)
        answers = [answer for reason in plan.reasons if (answer := _changed(reason, loaded, forecasts)) is not None]
        if answers:
            await self.store.run(AnswerClasses(fence, answers, now_ms))

    async def _wait(self, stop: asyncio.Event, mark: int) -> None:
        """Sleep until the database changed since `mark`, a call of the executor answered, or `idle_ms` have passed."""
        waits = [
            asyncio.create_task(self.store.wait_for_change(mark, self.settings.idle_ms / 1_000)),
            asyncio.create_task(stop.wait()),
        ]
        await asyncio.wait([*waits, *self._executions.under_way], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)  # a database that is away makes the next cycle fail, which is said there


def _changed(item: ClassReason, loaded: Loaded, forecasts: Mapping[ClassKey, Forecast]) -> ClassAnswer | None:
    """Return the answer for a class, None when it is what its row says already."""
    class_id = loaded.class_ids[item.class_key]
    forecast = forecasts.get(item.class_key, Forecast())
    data = canonical(dict(item.reason.data))
    new = (item.reason.code.value, data, forecast.start_ms, forecast.not_before_ms)
    if loaded.answers.get(class_id) == new:
        return None
    return ClassAnswer(class_id, new[0], data, item.reason.unblocks_when.value, forecast.start_ms, forecast.not_before_ms)


def _count_queue(loaded: Loaded, plan: Plan) -> None:
    counts: dict[str, int] = {}
    sizes = {job_class.key: len(job_class.jobs) for job_class in loaded.snapshot.classes}
    for item in plan.reasons:
        counts[item.reason.code.value] = counts.get(item.reason.code.value, 0) + sizes[item.class_key]
    metrics.QUEUED.clear()
    for code, count in counts.items():
        metrics.QUEUED.labels(code).set(count)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def run(store: Store, settings: SchedulerSettings, stop: asyncio.Event) -> None:
    """Run the scheduler of a fleet of machines until `stop`."""
    await Loop(store, NodesExecutor(store), settings).run(stop)
