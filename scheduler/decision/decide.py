"""Decide: one snapshot in, one plan out. The steps are order, gate, fit and place; each is a module of its own.

Owns the loop: take the class that is next, try its flavors, record a start or a reason. Does not own any rule. Every class
is considered in every decision; a class whose first job does not start is done, because its other jobs ask for the same and what is
free only shrinks. Each start is seen by the next job. Pure and deterministic: same snapshot, same plan.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.reasons import Reason, ReasonCode, Unblock
from scheduler.decision import backfill, gate, order, place
from scheduler.decision.backfill import Future, Hold, Holds, Lease
from scheduler.decision.fit import Member
from scheduler.decision.gate import Option
from scheduler.decision.order import Entry
from scheduler.decision.plan import ClassReason, Plan, Start
from scheduler.decision.snapshot import ClassKey, Snapshot, model_of, usage_of

# A later gate says more about what a job is waiting for: the reason of the flavor that came furthest is the class's reason.
_CAPACITY = frozenset({ReasonCode.NO_CAPACITY, ReasonCode.FRAGMENTED, ReasonCode.TOPOLOGY})
_GATE = {ReasonCode.BORROWING_LIMIT: 1, ReasonCode.QUOTA_EXCEEDED: 1, **dict.fromkeys(_CAPACITY, 2), ReasonCode.WOULD_DELAY: 3}


def decide(snapshot: Snapshot) -> Plan:
    """Return the starts that the snapshot allows, in order, and for every class that keeps waiting the reason."""
    decision = _Decision(snapshot)
    entries = decision.admit_to_queue()
    queue = order.queue(entries, decision.tree, fair_sharing=snapshot.policy.fair_sharing)
    while (entry := queue.head()) is not None:
        if decision.start(entry):
            queue.started()
        else:
            queue.blocked()
    return Plan(starts=tuple(decision.starts), reasons=tuple(decision.reasons))


def leases_of(snapshot: Snapshot) -> list[Lease]:
    """Return the running jobs as a walk into the future sees them."""
    return [
        backfill.lease_of(job, snapshot.fleet, usage_of(job.shape, model_of(job.flavor, snapshot.flavors)), snapshot.now_ms)
        for job in snapshot.running
    ]


class _Decision:
    """The working state of one decision: copies of fleet and tree, and what was decided so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.fleet = snapshot.fleet.copy()
        self.tree = snapshot.tree.copy()
        self.starts: list[Start] = []
        self.reasons: list[ClassReason] = []
        self._new_leases: list[Lease] = []
        self._holds = Holds()
        # Blocked by capacity, with the number of jobs that get a hold. Holds cost a walk, so they are found when somebody could pass.
        self._without_hold: list[tuple[Entry, Option, int]] = []
        self._depth_left: dict[str | None, int] = {}
        self._running: list[Lease] | None = None

    def admit_to_queue(self) -> list[Entry]:
        """Ask the fixed gates once per class. What they refuse can never start and does not compete."""
        entries = []
        for job_class in self.snapshot.classes:
            allowed = gate.options(self.snapshot, job_class.key)
            if isinstance(allowed, Reason):
                self.reasons.append(ClassReason(job_class.key, allowed))
            else:
                entries.append(Entry(job_class, allowed))
        return entries

    def start(self, entry: Entry) -> bool:
        """Start the entry's first job on the first of its flavors that works, or record why its class waits."""
        key = entry.job_class.key
        best: tuple[Reason, Option] | None = None
        for option in entry.options:
            answer = self._try(key, option)
            if isinstance(answer, list):
                self._bind(entry, option, answer)
                return True
            if best is None or _GATE[answer.code] > _GATE[best[0].code]:
                best = (answer, option)
        if best is None:
            raise ValueError(f"class of {key.tenant}: it has no flavor left, so the fixed gates should have refused it")
        reason, option = best
        self.reasons.append(ClassReason(key, reason))
        if reason.code in _CAPACITY or reason.code is ReasonCode.WOULD_DELAY:
            self._queue_for_hold(entry, option)
        return False

    def _try(self, key: ClassKey, option: Option) -> list[Member] | Reason:
        refusal = gate.over_quota(self.tree, key.tenant, option)
        if refusal is not None:
            return refusal
        policy, now_ms = self.snapshot.policy, self.snapshot.now_ms
        allowed = self.fleet.allowed(key.shape)
        members = place.place(self.fleet, key.shape, model=option.model, policy=policy, allowed=allowed)
        if members is None:
            return place.explain(self.fleet, key.shape, model=option.model, policy=policy, allowed=allowed)
        self._find_holds(option.model)
        if not self._holds.all:
            return members
        answer = backfill.place_beside(
            self.fleet,
            key.shape,
            model=option.model,
            policy=policy,
            holds=self._holds,
            from_ms=now_ms,
            until_ms=now_ms + key.limit_ms,
        )
        if isinstance(answer, Hold):
            data = {"limit_ms": key.limit_ms, "held_from_ms": answer.start_ms}
            return Reason(ReasonCode.WOULD_DELAY, data, Unblock.ANY_JOB_ENDS)
        return answer if answer is not None else members

    def _bind(self, entry: Entry, option: Option, members: Sequence[Member]) -> None:
        key, job = entry.job_class.key, entry.job
        borrowed = gate.borrowed_by(self.tree, key.tenant, option)
        ends_ms = self.snapshot.now_ms + key.limit_ms
        self.fleet.take(members, key.shape)
        self.tree.add(key.tenant, option.usage)
        if self._holds.all:
            self._holds.take_beside(members, key.shape, from_ms=self.snapshot.now_ms, until_ms=ends_ms)
        self._new_leases.append(Lease(ends_ms, job.seq, key.tenant, key.shape, members, option.usage))
        self.starts.append(Start(job.job, job.attempt, self.fleet.slices(members), self.fleet.node_names(members), option.flavor, borrowed))
        entry.started += 1

    def _queue_for_hold(self, entry: Entry, option: Option) -> None:
        left = self._depth_left.setdefault(option.model, self.snapshot.policy.backfill_depth)
        jobs = min(left, len(entry.waiting))
        if jobs:
            self._depth_left[option.model] = left - jobs
            self._without_hold.append((entry, option, jobs))

    def _find_holds(self, model: str | None) -> None:
        """Find the forward start times that are due. Jobs without GPUs compete for CPU and memory everywhere, so they ask for all."""
        due: list[tuple[Entry, Option, int]] = []
        later: list[tuple[Entry, Option, int]] = []
        for item in self._without_hold:
            (due if model is None or item[1].model in (model, None) else later).append(item)
        if not due:
            return
        self._without_hold = later
        if self._running is None:
            self._running = leases_of(self.snapshot)
        leases = self._running + self._new_leases
        future = Future(self.fleet, leases, now_ms=self.snapshot.now_ms, policy=self.snapshot.policy)
        for entry, option, jobs in due:
            future.hold(entry.job_class.key, (option,), jobs=jobs, holds=self._holds)
