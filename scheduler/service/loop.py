"""The live loop: catch up -> decide -> apply, for as long as this process leads.

A cycle hears what others changed, applies what agents saw, takes one reconciling step per lease that needs it, decides on the live view,
writes the plan down in guarded transactions, and then asks the executor. Intent is committed before any effect and every effect is named by
its lease, so a cycle that breaks off anywhere is simply done again: the view is dropped and built anew from rows. It wakes when the
database changes, coalesces what came meanwhile, and looks at the clock once a second. The composition root runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from executors.base import Executor
from executors.nodes import NodesExecutor
from scheduler.decision import decide as core
from scheduler.decision.plan import Plan
from scheduler.service import answering, applying, clock, metrics, observe, reconcile, transitions
from scheduler.service.executions import Executions
from scheduler.service.forecasts import Forecaster
from scheduler.service.index import Index
from scheduler.service.keeper import Keeper
from scheduler.service.lead import Lead
from scheduler.service.settings import SchedulerSettings
from store.engine import Store
from store.errors import StaleError
from store.executions import RecordHandles
from store.leader import Fence
from store.leases import AnswerClasses, ApplyChanges, Change, OpenLease
from store.plans import Applied, ApplyPlan, KeepMemory, RecordForecasts
from store.scheduling import Loaded

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
    lead: Lead = field(init=False)
    keeper: Keeper = field(init=False)
    _executions: Executions = field(init=False)
    _forecaster: Forecaster = field(init=False)
    _promises: answering.Promises = field(default_factory=answering.Promises)
    _decided: tuple[int, int] = (0, 0)  # version of the view and time of the newest decision
    _swept_ms: int = 0  # when all leases were looked at
    _memory_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.lead = Lead(self.store, self.holder, self.settings, self.now_ms, self.stopwatch)
        self.keeper = Keeper(self.store, self.settings.policy)
        self._executions = Executions(self.executor, self.settings, self.stopwatch)
        self._forecaster = Forecaster(self.settings, self.stopwatch)

    async def run(self, stop: asyncio.Event) -> None:
        """Repeat cycles until `stop`; an error is logged and the cycle tried again. Gives up the lead at the end."""
        renewal = asyncio.create_task(self.lead.keep(stop))
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
                await clock.pause(stop, self.settings.retry_ms / 1_000)
                continue
            await self._wait(stop, mark)
        await renewal
        if (fence := self.lead.fence) is not None:
            await self._remember(fence, self.now_ms(), is_last=True)
            self._lost_lead(forget=False)
            await self.lead.give_up()

    async def step(self) -> bool:
        """Do one cycle; return False when another process leads. StaleError when the lead was lost half-way: nothing more was written."""
        before = self.lead.fence
        fence = await self.lead.hold()
        if fence != before:
            self._lost_lead(forget=False)
            metrics.LEADING.set(0 if fence is None else 1)
        if fence is None:
            return False
        with metrics.CYCLE_SECONDS.time():
            try:
                await self._cycle(fence, self.lead.stamp())
            except BaseException:
                self._forget_view()
                raise
        return True

    def _lost_lead(self, *, forget: bool = True) -> None:
        if forget:
            self.lead.lost()
        self._executions.forget()
        self._forecaster.forget()
        self._promises.forget()
        self._forget_view()
        metrics.LEADING.set(0)
        metrics.QUEUED.clear()
        for gauge in (metrics.OPEN_LEASES, metrics.OVERDUE, metrics.NOMINATED):
            gauge.set(0)

    def _forget_view(self) -> None:
        self.keeper.drop()
        self._decided = (0, 0)  # so long ago that the next cycle decides

    async def _cycle(self, fence: Fence, now_ms: int) -> None:
        index = await self.keeper.catch_up(now_ms)
        applied = await observe.apply_observations(self.store, fence, now_ms=now_ms)
        metrics.OBSERVATIONS.inc(applied.count)
        await self.keeper.refresh(applied.job_ids)
        await self._reconcile(fence, index, now_ms)
        if self._decided[0] != index.version or not 0 <= now_ms - self._decided[1] < self.settings.idle_ms or self._forecaster.under_way:
            await self._decide(fence, index, now_ms)
        await self._execute(fence, index, now_ms, is_caught_up=applied.is_caught_up)
        metrics.OPEN_LEASES.set(len(index.leases))
        await self._remember(fence, now_ms)

    async def _reconcile(self, fence: Fence, index: Index, now_ms: int) -> None:
        """Write down which leases shall stop: those that changed are looked at in every cycle, all of them once a second."""
        is_sweep = not 0 <= now_ms - self._swept_ms < self.settings.idle_ms
        due = list(index.leases.values()) if is_sweep else [index.leases[lease_id] for lease_id in sorted(index.touched)]
        index.touched.clear()
        deadlines = reconcile.Deadlines(self.settings.start_deadline_ms, self.settings.overrun_ms)
        changes = [change for lease in due if (change := _due_change(lease, deadlines, now_ms)) is not None]
        await self._apply(fence, index, changes, now_ms)
        if is_sweep:
            self._swept_ms = now_ms
            metrics.OVERDUE.set(sum(1 for lease in index.leases.values() if reconcile.is_overdue(lease, now_ms=now_ms)))

    async def _apply(self, fence: Fence, index: Index, changes: Sequence[Change], now_ms: int) -> None:
        if not changes:
            return
        jobs = {index.leases[change.lease_id].job_id for change in changes}
        await self.store.run(ApplyChanges(fence, changes, now_ms))
        await self.keeper.refresh(jobs)
        for change in changes:
            if "stop_cause" in change.lease:
                metrics.STOPS.labels(change.lease["stop_cause"]).inc()

    async def _decide(self, fence: Fence, index: Index, now_ms: int) -> None:
        """Decide on the view as it is, write the plan down, and answer the classes that wait."""
        loaded = index.loaded(now_ms)
        version = index.version
        with metrics.DECIDE_SECONDS.time():
            plan = await asyncio.to_thread(core.decide, loaded.snapshot)
        answering.count_queue(plan, loaded)
        if self._forecaster.is_due(plan):
            self._forecaster.begin(index.loaded(now_ms, is_frozen=True).snapshot, plan)
        is_done = await self._apply_plan(fence, index, loaded, plan, now_ms)
        await self._forecaster.settle()
        await self._answer(fence, index, loaded, plan, now_ms)
        # What the plan itself changed is not news: its own starts and stops leave the others waiting for the same reasons.
        self._decided = (index.version if is_done and not plan.preemptions else version, now_ms)

    async def _apply_plan(self, fence: Fence, index: Index, loaded: Loaded, plan: Plan, now_ms: int) -> bool:
        """Bind the plan's starts, stop its victims, keep its nominations; False when something of it went stale."""
        victims = applying.victims(plan, loaded)
        nominated = applying.nominations(plan, index)
        to_keep = None if applying.is_same(index.nominations, nominated) else applying.to_keep(nominated, loaded)
        portions = applying.starts(plan, loaded, new_id=self.new_id, new_token=self.new_token)
        portion, stops, done = next(portions, []), [item.stop() for item in victims], Applied()
        while portion or stops or to_keep is not None:
            writing = asyncio.ensure_future(self.store.run(ApplyPlan(fence, now_ms, portion, stops, to_keep, index.terms.mark)))
            await asyncio.sleep(0)  # it is handed in: the next portion is made while this one is written
            portion = next(portions, [])
            part = await writing
            if part.is_outdated:
                break
            if to_keep is not None:
                index.nominate(nominated)
                metrics.NOMINATED.set(len(nominated))
            done = Applied((*done.bound, *part.bound), (*done.stopped, *part.stopped))
            stops, to_keep = [], None
        if plan.starts or victims:
            await self._follow_up(fence, index, plan, victims, done, now_ms)
        return len(done.bound) == len(plan.starts) and len(done.stopped) == len(victims)

    async def _follow_up(
        self, fence: Fence, index: Index, plan: Plan, victims: Sequence[applying.Victim], done: Applied, now_ms: int
    ) -> None:
        """Let the view and the metrics know what was done."""
        stopped = [item for item in victims if item.running.lease_id in done.stopped]
        for item in stopped:
            metrics.PREEMPTIONS.labels(item.preemption.cause.value).inc()
            metrics.STOPS.labels(item.stop().stop_cause).inc()
            index.preempted(item.running, now_ms)
        metrics.STARTS.inc(len(done.bound))
        metrics.STALE_STARTS.inc(len(plan.starts) - len(done.bound))
        starts = {start.job: start for start in plan.starts}
        for lease in done.bound:
            index.started(starts[lease.job_id], lease)
        await self.keeper.refresh([item.running.job for item in stopped])
        kept = self._promises.kept({lease.job_id: lease.attempt for lease in done.bound}, now_ms)
        if kept:
            await self.store.run(RecordForecasts(fence, kept, now_ms))

    async def _execute(self, fence: Fence, index: Index, now_ms: int, *, is_caught_up: bool) -> None:
        outcome = await self._executions.drive(list(index.leases.values()), now_ms=now_ms, is_caught_up=is_caught_up)
        if outcome.handles:
            await self.store.run(RecordHandles(fence, outcome.handles, now_ms))
            index.keep_handles(outcome.handles)
        await self._apply(fence, index, outcome.changes, now_ms)

    async def _answer(self, fence: Fence, index: Index, loaded: Loaded, plan: Plan, now_ms: int) -> None:
        answers = answering.answers(plan, loaded, self._forecaster.newest)
        if not answers:
            return
        await self.store.run(AnswerClasses(fence, answers, now_ms))
        self._promises.note(answers, loaded, now_ms)
        for answer in answers:
            index.answered(answer.class_id, answering.told(answer))

    async def _remember(self, fence: Fence, now_ms: int, *, is_last: bool = False) -> None:
        """Keep the memory of fair sharing now and then, and at the end."""
        memory = self.keeper.index.memory if self.keeper.index is not None else None
        is_due = self.stopwatch() - self._memory_seconds >= self.settings.memory_every_ms / 1_000
        if memory is None or not (is_due or is_last):
            return
        self._memory_seconds = self.stopwatch()
        try:
            await self.store.run(KeepMemory(fence, memory.half_life_ms, memory.now_ms, memory.sums, now_ms))
        except Exception:
            if not is_last:
                raise
            log.exception("the memory of fair sharing was not kept; the next leader goes on from the one before")

    async def _wait(self, stop: asyncio.Event, mark: int) -> None:
        """Sleep until the database changed since `mark`, a call of the executor or a walk ended, or `idle_ms` have passed."""
        waits = [
            asyncio.create_task(self.store.wait_for_change(mark, self.settings.idle_ms / 1_000)),
            asyncio.create_task(stop.wait()),
        ]
        await asyncio.wait([*waits, *self._executions.under_way, *self._forecaster.under_way], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)  # a database that is away makes the next cycle fail, which is said there


def _due_change(lease: OpenLease, deadlines: reconcile.Deadlines, now_ms: int) -> Change | None:
    return transitions.declared_gone(lease, now_ms=now_ms) or reconcile.step(lease, deadlines, now_ms=now_ms)


async def run(store: Store, settings: SchedulerSettings, stop: asyncio.Event) -> None:
    """Run the scheduler of a fleet of machines until `stop`."""
    await Loop(store, NodesExecutor(store), settings).run(stop)
