"""Simulate: let virtual time run through a scenario until all jobs have ended, or until `until`.

Owns the order of things: at one instant ends, then events, then arrivals, then decisions until nothing changes. Does not own
rules (scheduler/decision/), the state (world.py) or the sums (metrics.py). Time is the events' own; nothing here reads
a clock: the caller passes a stopwatch for `decisions_per_second` and reads nothing else from it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from typing import Any

from domain.reasons import ReasonCode
from domain.states import FailureClass, JobState
from scheduler.decision.decide import decide
from scheduler.decision.plan import Preemption
from scheduler.decision.snapshot import HOUR_MS, Nomination, RunningJob
from scheduler.sim import answers, events, support
from scheduler.sim.metrics import MILLI, Metrics, Outcome
from scheduler.sim.scenario import Scenario
from scheduler.sim.world import Job, World

PASSES_PER_INSTANT_MAXIMUM = 10_000  # jobs of no length can start and end at one instant; this bounds a scenario full of them
EVICTION = "eviction"

Stopwatch = Callable[[], int]  # nanoseconds, only differences count
Emit = Callable[[dict[str, Any]], None]


class _Turn(IntEnum):
    """What comes first at one instant."""

    END = 0
    RELEASE = 1  # of a victim whose grace is over; one that ends by itself at that moment was not stopped
    EVENT = 2
    ARRIVAL = 3
    WAKE = 4  # nothing happens but the time, which may change the answer


@dataclass(slots=True)
class Record:
    """What became of one job."""

    job: Job
    state: JobState = JobState.QUEUED
    queued_since_ms: int | None = None
    waited_ms: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    attempts: int = 0
    saved_ms: int = 0  # work that checkpoints of earlier attempts kept
    preempted_by: list[str] = field(default_factory=list)
    code: str | None = None
    slices: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left_ms(self) -> int:
        """The time that the next or present attempt needs to finish the job."""
        return self.job.run_ms - self.saved_ms

    def printed(self) -> dict[str, Any]:
        """Return the record as printed."""
        return {
            "state": self.state.value,
            "submitted": answers.seconds(self.job.submitted_ms),
            "started": None if self.started_ms is None else answers.seconds(self.started_ms),
            "ended": None if self.ended_ms is None else answers.seconds(self.ended_ms),
            "attempts": self.attempts,
            "preempted_by": self.preempted_by,
            "code": self.code,
            "slices": self.slices,
        }


def simulate(scenario: Scenario, *, stopwatch: Stopwatch, rss_peak_bytes: Callable[[], int], emit: Emit | None = None) -> dict[str, Any]:
    """Run the scenario and return what `--format json` prints. `emit` gets one entry per start, end and preemption."""
    support.check(scenario)
    simulation = _Simulation(scenario, stopwatch, emit or _ignore)
    simulation.run()
    return simulation.result(rss_peak_bytes())


def _ignore(_: dict[str, Any]) -> None:
    return None


class _Simulation:
    """One run: an agenda of what is to come, the world, and a record per job."""

    def __init__(self, scenario: Scenario, stopwatch: Stopwatch, emit: Emit) -> None:
        self.scenario = scenario
        self.stopwatch = stopwatch
        self.emit = emit
        self.world = World(scenario)
        self.now_ms = scenario.now_ms
        capacity = sum(len(node.devices) for node in self.world.nodes) * MILLI
        self.metrics = Metrics(capacity, scenario.now_ms)
        self.records = {job.id: Record(job) for job in self.world.jobs.values()}
        self.agenda: list[tuple[int, _Turn, int, Any]] = []
        self.dependents: dict[str, list[str]] = {}
        self.unmet: dict[str, set[str]] = {}
        self.due = 0  # entries of the agenda at which more happens than that time passes
        self.arrivals_left = 0
        self.blocked: set[str] = set()  # arrived, and waiting for other jobs to succeed
        self._fill_agenda()

    def _fill_agenda(self) -> None:
        for running in self.world.running.values():
            record = self.records[running.job]
            self._note_start(record, running)
            self._put_end(running)
        for at, event in enumerate(self.scenario.events):
            self._put(max(event.at_ms, self.now_ms), _Turn.EVENT, at, event)
        windows = [(item.start_ms, item.end_ms) for item in self.world.reservations]
        windows += [(item.start_ms, item.end_ms) for item in self.world.maintenance]
        for moment in sorted({moment for window in windows for moment in window if moment > self.now_ms}):
            self._put(moment, _Turn.EVENT, len(self.scenario.events), None)
        for job in self.world.jobs.values():
            if job.id in self.world.running:
                continue
            self.unmet[job.id] = set(job.depends_on)
            for name in job.depends_on:
                self.dependents.setdefault(name, []).append(job.id)
            self._put(max(job.submitted_ms, self.now_ms), _Turn.ARRIVAL, job.seq, job)
            self.arrivals_left += 1

    def _put(self, at_ms: int, turn: _Turn, order: int, what: Any) -> None:
        heapq.heappush(self.agenda, (at_ms, turn, order, what))
        self.due += turn is not _Turn.WAKE

    def _put_end(self, running: RunningJob) -> None:
        left_ms = self.records[running.job].left_ms
        ends_ms = running.started_ms + min(left_ms, running.limit_ms)
        self._put(max(ends_ms, self.now_ms), _Turn.END, running.seq, (running.job, running.attempt))

    def run(self) -> None:
        """Take one instant after another."""
        until_ms = self.scenario.until_ms
        while self.agenda and not self._all_ended() and self._can_change() and (until_ms is None or self.agenda[0][0] <= until_ms):
            self._pass_time(self.agenda[0][0])
            self._instant()
        if until_ms is not None and not self._all_ended():
            self._pass_time(until_ms)

    def _pass_time(self, to_ms: int) -> None:
        self.metrics.move_to(to_ms)
        self.world.pass_time(self.now_ms, to_ms)
        self.now_ms = to_ms

    def _all_ended(self) -> bool:
        return not self.arrivals_left and not self.world.running and not self.world.has_queue and not self.blocked

    def _can_change(self) -> bool:
        """False when all that is to come is that time passes over jobs that can never start."""
        return bool(self.due or self.world.running or self.world.nominations)

    def _instant(self) -> None:
        """Let everything happen that is due now; a decision can make more of it due."""
        had_arrivals = self.arrivals_left > 0
        for _ in range(PASSES_PER_INSTANT_MAXIMUM):
            while self.agenda and self.agenda[0][0] == self.now_ms:
                _, turn, _, what = heapq.heappop(self.agenda)
                self.due -= turn is not _Turn.WAKE
                self._happen(turn, what)
            if not self._decide():
                break
        self.metrics.look_at(self.world)
        if had_arrivals and not self.arrivals_left:
            self.metrics.arrivals_ended()

    def _happen(self, turn: _Turn, what: Any) -> None:
        if turn is _Turn.END:
            self._end(*what)
        elif turn is _Turn.RELEASE:
            self._release(*what)
        elif turn is _Turn.EVENT and what is not None:
            for evicted in events.apply(self.world, what):
                self._evict(evicted)
        elif turn is _Turn.ARRIVAL:
            self.arrivals_left -= 1
            self._arrive(what)

    def _arrive(self, job: Job) -> None:
        record = self.records[job.id]
        if record.state is not JobState.QUEUED:
            return  # cancelled before it came
        record.queued_since_ms = self.now_ms
        if self.unmet[job.id]:
            record.code = ReasonCode.DEPENDENCY.value
            self.blocked.add(job.id)
        else:
            self.world.enqueue(job, attempt=1)

    def _decide(self) -> bool:
        """Decide once and apply; False when nothing changed."""
        if not self.world.has_queue:
            return False
        snapshot = self.world.snapshot(self.now_ms)
        began_ns = self.stopwatch()
        plan = decide(snapshot)
        self.metrics.decided.spent_ns += self.stopwatch() - began_ns
        self.metrics.decided.passes += 1
        self.metrics.decided.starts += len(plan.starts)
        for start in plan.starts:
            running = self.world.start(start, now_ms=self.now_ms)
            record = self.records[start.job]
            record.waited_ms += self.now_ms - (record.queued_since_ms if record.queued_since_ms is not None else self.now_ms)
            self._note_start(record, running)
            self._put_end(running)
            self._emit("start", start.job, slices=record.slices, borrowed=dict(start.borrowed))
        for preemption in plan.preemptions:
            self._preempt(preemption)
        for item in plan.reasons:
            for pending in self.world.waiting().get(item.class_key, ()):
                self.records[pending.job].code = item.reason.code.value
        is_new = self._nominate(plan.nominations)
        return bool(plan.starts or plan.preemptions or is_new)

    def _preempt(self, preemption: Preemption) -> None:
        """Give a victim notice. Without grace it is gone at once."""
        running = self.world.tell_to_leave(preemption.job, now_ms=self.now_ms)
        self.metrics.decided.preemptions += 1
        self.records[preemption.job].preempted_by.append(preemption.beneficiary)
        self._emit("preemption", preemption.job, **{"cause": preemption.cause.value, "for": preemption.beneficiary})
        if not self.world.policy.preemption_grace_ms:
            self._release(running.job, running.attempt)
        else:
            self._put(self.now_ms + self.world.policy.preemption_grace_ms, _Turn.RELEASE, running.seq, (running.job, running.attempt))
        if self.world.policy.preemptions_per_hour is not None:
            self._put(self.now_ms + HOUR_MS, _Turn.WAKE, 0, None)

    def _nominate(self, nominations: Sequence[Nomination]) -> bool:
        """Replace the nominations; True when one is new."""
        known = {(item.job, item.attempt) for item in self.world.nominations}
        self.world.nominations = nominations
        for item in nominations:
            self.records[item.job].code = ReasonCode.WAITING_FOR_PREEMPTED.value
            if (item.job, item.attempt) not in known:
                self._put(max(item.expires_ms, self.now_ms), _Turn.WAKE, 0, None)
        return any((item.job, item.attempt) not in known for item in nominations)

    def _release(self, job: str, attempt: int) -> None:
        running = self.world.running.get(job)
        if running is None or running.attempt != attempt:
            return  # it ended by itself, or lost its node
        self.world.stop(job)
        self._requeue(running)

    def _note_start(self, record: Record, running: RunningJob) -> None:
        record.state = JobState.RUNNING
        record.started_ms = running.started_ms
        record.queued_since_ms = None
        record.attempts = running.attempt
        record.code = None
        record.slices = answers.slice_entries(running.slices, running.nodes)
        self._hold(running, running.shape.milli_gpu)

        if self.world.policy.min_runtime_ms:
            self._put(self.now_ms + self.world.policy.min_runtime_ms, _Turn.WAKE, 0, None)

    def _hold(self, running: RunningJob, milli_gpu: int) -> None:
        self.metrics.holds(self.world.tree.tenant_of(running.tenant), milli_gpu)

    def _end(self, job_id: str, attempt: int) -> None:
        running = self.world.running.get(job_id)
        if running is None or running.attempt != attempt:
            return  # that attempt was evicted before its end
        self.world.stop(job_id)
        self._hold(running, -running.shape.milli_gpu)
        record = self.records[job_id]
        is_over = record.left_ms > running.limit_ms
        self._close(record, JobState.FAILED if is_over else JobState.SUCCEEDED, FailureClass.TIME_LIMIT.value if is_over else None)
        self._tell_dependents(record)

    def _close(self, record: Record, state: JobState, code: str | None) -> None:
        record.state, record.code, record.ended_ms = state, code, self.now_ms
        self._emit("end", record.job.id, state=state.value, code=code)

    def _tell_dependents(self, ended: Record) -> None:
        """Queue jobs whose last dependency succeeded, and cancel all that can never be met, however far down."""
        settled = [ended]
        while settled:
            record = settled.pop()
            for name in self.dependents.get(record.job.id, ()):
                dependent = self.records[name]
                if dependent.state is not JobState.QUEUED:
                    continue
                if record.state is not JobState.SUCCEEDED:
                    self.blocked.discard(name)
                    self._close(dependent, JobState.CANCELLED, FailureClass.DEPENDENCY_FAILED.value)
                    settled.append(dependent)
                    continue
                self.unmet[name].discard(record.job.id)
                if not self.unmet[name] and dependent.queued_since_ms is not None:
                    dependent.code = None
                    self.blocked.discard(name)
                    self.world.enqueue(dependent.job, attempt=1)

    def _evict(self, running: RunningJob) -> None:
        """Requeue a job that lost its node."""
        self._requeue(running)
        self._emit("preemption", running.job, cause=EVICTION)

    def _requeue(self, running: RunningJob) -> None:
        """Queue the next attempt of a stopped job. It keeps its submit time, and its work counts as lost since the last checkpoint."""
        self._hold(running, -running.shape.milli_gpu)
        job, record = self.world.jobs[running.job], self.records[running.job]
        ran_ms = self.now_ms - running.started_ms
        lost_ms = ran_ms % job.checkpoint_every_ms if job.checkpoint_every_ms else ran_ms
        record.saved_ms += ran_ms - lost_ms
        self.metrics.lost_milli_gpu_ms += lost_ms * running.shape.milli_gpu
        record.state, record.queued_since_ms = JobState.QUEUED, self.now_ms
        record.started_ms, record.slices = None, []
        self.world.enqueue(job, attempt=running.attempt + 1, was_preempted=bool(record.preempted_by))

    def _emit(self, kind: str, job: str, **more: Any) -> None:
        self.emit({"at": answers.seconds(self.now_ms), "event": kind, "job": job, "attempt": self.records[job].attempts, **more})

    def result(self, rss_peak_bytes: int) -> dict[str, Any]:
        """Return the printed result."""
        queued = [record for record in self.records.values() if record.job.submitted_ms <= self.now_ms or record.attempts]
        measured = [record for record in queued if record.started_ms is not None and not self._ran_at_first(record)]
        ends = [record.ended_ms for record in self.records.values() if record.ended_ms is not None and record.attempts]
        tenants = dict.fromkeys(self._tenant(record.job) for record in queued if record.job.key.shape.slices)
        outcome = Outcome(
            makespan_ms=max(ends, default=self.scenario.now_ms) - self.scenario.now_ms,
            waits_ms=[record.waited_ms for record in measured],
            slowdowns=[slowdown for record in measured if (slowdown := _slowdown(record)) is not None],
            weights={tenant: self.world.quota_nodes[tenant].weight for tenant in tenants},
        )
        metrics = self.metrics.summary(outcome, rss_peak_bytes)
        found = {"jobs": {record.job.id: record.printed() for record in self.records.values()}, "metrics": metrics}
        return {**found, "capacity_reservations": self.world.reserved.summary()} if self.world.reservations else found

    def _tenant(self, job: Job) -> str:
        return self.world.tree.tenant_of(job.key.tenant)

    def _ran_at_first(self, record: Record) -> bool:
        return record.job.seq < len(self.scenario.running) and record.attempts == 1


def _slowdown(record: Record) -> Fraction | None:
    run_ms = min(record.job.run_ms, record.job.key.limit_ms)
    return Fraction(record.waited_ms + run_ms, run_ms) if run_ms else None
