"""The live loop: load -> decide -> apply, for as long as this process leads.

A cycle applies what agents saw, takes one reconciling step per open lease, decides on a snapshot read from rows, and binds the plan's
starts in one guarded transaction. It wakes when the database changes, coalesces what came meanwhile, and looks at the clock once a
second. Intent is committed before any effect: agents pull their assignments from the rows, so doing a cycle twice does it once. The
composition root runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from scheduler.decision import decide as core
from scheduler.decision import forecast as forecasting
from scheduler.decision.plan import ClassReason, Forecast, Plan, Start
from scheduler.decision.snapshot import ClassKey
from scheduler.service import clock, metrics, observe, reconcile
from scheduler.service.settings import SchedulerSettings
from store.engine import Store
from store.errors import StaleError
from store.jobs import canonical
from store.leader import Fence, GiveUpLead, TakeLead
from store.leases import AnswerClasses, ApplyChanges, BindStarts, ClassAnswer, OpenLeases, SliceToBind, StartToBind
from store.observations import SilentNodes
from store.scheduling import Loaded, LoadSnapshot

LEADER = "scheduler"
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass
class Loop:
    """One scheduler process. `step` does one cycle and is what tests drive; `run` repeats it until `stop`."""

    store: Store
    settings: SchedulerSettings
    holder: str = field(default_factory=lambda: clock.new_id("sch"))
    now_ms: Callable[[], int] = clock.now_ms
    new_id: Callable[[str], str] = clock.new_id
    new_token: Callable[[], str] = clock.new_token
    fence: Fence | None = None
    _renewed_ms: int = 0
    _forecast_ms: int = 0
    _forecasts: Mapping[ClassKey, Forecast] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Repeat cycles until `stop`; an error is logged and the cycle tried again. Gives up the lead at the end."""
        mark = -1
        while not stop.is_set():
            try:
                mark = self.store.change_mark()
                await self.step()
            except StaleError:
                log.warning("another scheduler leads now")
                self.fence = None
            except Exception:
                log.exception("the cycle failed; trying again", retry_seconds=RETRY_SECONDS)
                await _sleep(stop, RETRY_SECONDS)
            await self._wait(stop, mark)
        if self.fence is not None:
            await self.store.run(GiveUpLead(self.fence))

    async def step(self) -> bool:
        """Do one cycle; return False when another process leads."""
        fence = await self._lead()
        if fence is None:
            return False
        with metrics.CYCLE_SECONDS.time():
            now_ms = self.now_ms()
            metrics.OBSERVATIONS.inc(await observe.apply_observations(self.store, fence, now_ms=now_ms))
            await self._reconcile(fence, now_ms)
            loaded = await self.store.read(LoadSnapshot(now_ms, self.settings.policy))
            with metrics.DECIDE_SECONDS.time():
                plan = await asyncio.to_thread(core.decide, loaded.snapshot)
            await self._bind(fence, loaded, plan, now_ms)
            await self._answer(fence, loaded, plan, now_ms)
        return True

    async def _lead(self) -> Fence | None:
        now_ms = self.now_ms()
        if self.fence is None or now_ms - self._renewed_ms >= self.settings.term_ms // 3:
            self.fence = await self.store.run(TakeLead(LEADER, self.holder, now_ms, self.settings.term_ms))
            self._renewed_ms = now_ms
            metrics.LEADING.set(0 if self.fence is None else 1)
            if self.fence is not None:
                await self.store.run(SilentNodes(self.fence, now_ms, self.settings.node_lost_after_ms))
        return self.fence

    async def _reconcile(self, fence: Fence, now_ms: int) -> None:
        deadlines = reconcile.Deadlines(self.settings.start_deadline_ms, self.settings.overrun_ms)
        leases = await self.store.read(OpenLeases())
        changes = [change for lease in leases if (change := reconcile.step(lease, deadlines, now_ms=now_ms)) is not None]
        if changes:
            await self.store.run(ApplyChanges(fence, changes, now_ms))
            for change in changes:
                metrics.STOPS.labels(change.lease["stop_cause"]).inc()

    async def _bind(self, fence: Fence, loaded: Loaded, plan: Plan, now_ms: int) -> None:
        if not plan.starts:
            return
        starts = [self._to_bind(start, loaded) for start in plan.starts]
        bound = await self.store.run(BindStarts(fence, starts, now_ms))
        metrics.STARTS.inc(len(bound))
        metrics.STALE_STARTS.inc(len(starts) - len(bound))

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
        if plan.reasons and now_ms - self._forecast_ms >= self.settings.forecast_every_ms:
            depth = self.settings.policy.forecast_depth
            self._forecasts = await asyncio.to_thread(forecasting.forecast, loaded.snapshot, depth, plan=plan)
            self._forecast_ms = now_ms
        _count_queue(loaded, plan)
        answers = [answer for reason in plan.reasons if (answer := self._changed(reason, loaded)) is not None]
        if answers:
            await self.store.run(AnswerClasses(fence, answers, now_ms))

    def _changed(self, item: ClassReason, loaded: Loaded) -> ClassAnswer | None:
        class_id = loaded.class_ids[item.class_key]
        forecast = self._forecasts.get(item.class_key, Forecast())
        data = canonical(dict(item.reason.data))
        new = (item.reason.code.value, data, forecast.start_ms, forecast.not_before_ms)
        if loaded.answers.get(class_id) == new:
            return None
        return ClassAnswer(class_id, new[0], data, item.reason.unblocks_when.value, forecast.start_ms, forecast.not_before_ms)

    async def _wait(self, stop: asyncio.Event, mark: int) -> None:
        waits = [
            asyncio.create_task(self.store.wait_for_change(mark, self.settings.idle_ms / 1_000)),
            asyncio.create_task(stop.wait()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


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
    """Run the scheduler until `stop`."""
    await Loop(store, settings).run(stop)
