"""Decide: one snapshot in, one plan out. The steps are order, gate, fit, place and preempt; each is a module of its own.

Owns the loop: take the class that is next, try its flavors, record a start, a nomination or a reason. Does not own any rule. Every
class is considered in every decision; a class whose first job does not start is done, because its other jobs ask for the same and
what is free only shrinks. Each start and nomination is seen by the next job. Pure and deterministic: same snapshot, same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from domain.reasons import Reason, ReasonCode, Unblock
from quotas.tree import WhenCanBorrow, WhenCanPreempt
from scheduler.decision import backfill, gate, nominate, order, place, windows
from scheduler.decision.backfill import AnyLease, Future, Lease
from scheduler.decision.fit import Member
from scheduler.decision.gate import Option
from scheduler.decision.ground import Ground
from scheduler.decision.order import Entry
from scheduler.decision.plan import ClassReason, Plan, Preemption, Start
from scheduler.decision.preempt import Found
from scheduler.decision.snapshot import ClassKey, Nomination, PendingJob, Snapshot
from scheduler.decision.taking import Taking
from scheduler.decision.users import Users
from scheduler.decision.victims import Request
from scheduler.decision.windows import Window

# A later gate says more about what a job is waiting for: the reason of the flavor that came furthest is the class's reason.
_CAPACITY = frozenset({ReasonCode.CAPACITY_RESERVED, ReasonCode.NO_CAPACITY, ReasonCode.FRAGMENTED, ReasonCode.TOPOLOGY})
_GATE = {
    ReasonCode.BORROWING_LIMIT: 1,
    ReasonCode.QUOTA_EXCEEDED: 1,
    ReasonCode.USER_CAP: 1,
    **dict.fromkeys(_CAPACITY, 2),
    ReasonCode.WOULD_DELAY: 3,
}


# Stands for "no place" while the decision runs; what is free in the end says why, once for all classes that ask for the same.
_NO_PLACE = Reason(ReasonCode.NO_CAPACITY)


class _Outcome(Enum):
    """What became of the job at the head of the queue."""

    STARTED = "started"
    NOMINATED = "nominated"
    BLOCKED = "blocked"


def decide(snapshot: Snapshot) -> Plan:
    """Return the starts that the snapshot allows, in order, who has to leave, and for every class that keeps waiting the reason."""
    decision = _Decision(snapshot)
    decision.honour_nominations()
    entries = decision.admit_to_queue()
    decision.serve_reservations(entries)
    queue = order.queue(
        [entry for entry in entries if not entry.is_spent],
        decision.ground.later.tree,
        fair_sharing=snapshot.policy.fair_sharing,
        users=decision.users,
        past=snapshot.past,
    )
    while (entry := queue.head()) is not None:
        outcome = decision.consider(entry)
        if outcome is _Outcome.BLOCKED:
            queue.blocked()
            continue
        queue.started()
        if outcome is _Outcome.NOMINATED:
            queue.recompute()
    return decision.plan()


class _Decision:
    """The working state of one decision: copies of fleet and tree, and what was decided so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.ground = Ground(snapshot)
        self.users = Users(snapshot)
        self.starts: list[Start] = []
        self.reasons: list[ClassReason] = []
        self._unexplained: list[tuple[int, Option]] = []  # which of the reasons are yet to be found
        self._explained: dict[tuple[object, ...], Reason] = {}
        self.preemptions: list[Preemption] = []
        self.nominations: list[Nomination] = []
        self._taking = Taking(snapshot, self.ground, self.users, place=self._place_later, prepare=self._find_holds)
        self._new_leases: list[Lease] = []
        self._running: dict[str, AnyLease] | None = None  # without those who leave, in this plan too
        self._served: set[str] = set()  # started or nominated before anybody else was considered
        self._nominated: dict[ClassKey, Nomination] = {}  # the first of each class
        self._placing = backfill.placing_of(snapshot)
        # Blocked by capacity, with the number of jobs that get a hold. Holds cost a walk, so they are found when somebody could pass.
        self._without_hold: list[tuple[Entry, Option, int]] = []
        self._depth_left: dict[str | None, int] = {}

    def honour_nominations(self) -> None:
        """Start the nominated jobs whose places are free, and hold the places of the others."""
        for nominee in nominate.nominees(self.snapshot, self.ground.now.fleet):
            key, members, option = nominee.key, nominee.members, nominee.option
            self._served.add(nominee.job.job)
            is_allowed = gate.over_quota(self.ground.now.tree, key.tenant, option) is None and self.users.over_cap(key) is None
            if is_allowed and self.ground.is_free_now(members, key.shape):
                self._bind(key, nominee.job, option, members)
            else:
                self._hold_place(key, nominee.job.seq, nominee.nomination, option, members)

    def admit_to_queue(self) -> list[Entry]:
        """Ask the fixed gates once per class. What they refuse can never start and does not compete."""
        entries = []
        for job_class in self.snapshot.classes:
            jobs = job_class.jobs
            if self._served:
                jobs = [job for job in jobs if job.job not in self._served]
                if not jobs:
                    continue
            allowed = gate.options(self.snapshot, job_class.key)
            if isinstance(allowed, Reason):
                self.reasons.append(ClassReason(job_class.key, allowed))
            else:
                entries.append(Entry(job_class, allowed, jobs))
        return entries

    def serve_reservations(self, entries: Sequence[Entry]) -> None:
        """Start the jobs of tenants whose capacity reservations are open, on the devices set aside for them, before all others."""
        for window in self._placing.windows.all:
            if window.tenant is None or not window.is_open_at(self.snapshot.now_ms):
                continue
            members = [entry for entry in entries if window.tenant in self.ground.later.tree.path(entry.job_class.key.tenant)]
            for entry in sorted(members, key=lambda entry: () if entry.is_spent else entry.rank()):
                option = next((option for option in entry.options if option.model == window.model), None)
                while option is not None and not entry.is_spent and self._serve(entry, option, window):
                    pass

    def _serve(self, entry: Entry, option: Option, window: Window) -> bool:
        """Start or nominate the entry's first job inside an open reservation; False when there is no room, not even by taking."""
        key, now = entry.job_class.key, self.ground.now
        if self.users.over_cap(key) is not None:
            return False
        over = gate.over_quota(now.tree, key.tenant, option) or gate.over_quota(self.ground.later.tree, key.tenant, option)
        members = None if over else self._placing.find_inside(now.fleet, key, option, window, from_ms=self.snapshot.now_ms)
        if members is not None:
            self._start(entry, option, members)
            return True

        def place_inside(request: Request) -> list[Member] | None:
            fleet = self.ground.later.fleet
            return self._placing.find_inside(fleet, request.key, request.option, window, from_ms=self._taking.releases_ms)

        found = self._taking.inside(entry, option, window, place_inside)
        if found is None:
            return False
        self._nominate(entry, option, found)
        return True

    def plan(self) -> Plan:
        """Return what was decided. A class whose waiting jobs are all nominated has their reason."""
        for at, option in self._unexplained:
            key = self.reasons[at].class_key
            self.reasons[at] = ClassReason(key, self._explain(key, option))
        answered = {item.class_key for item in self.reasons}
        nominated = [ClassReason(key, nominate.reason(item)) for key, item in self._nominated.items() if key not in answered]
        return Plan(
            starts=tuple(self.starts),
            preemptions=tuple(self.preemptions),
            reasons=(*self.reasons, *nominated),
            nominations=tuple(self.nominations),
        )

    def consider(self, entry: Entry) -> _Outcome:
        """Start or nominate the entry's first job on the flavor that suits it best, or record why its class waits."""
        key = entry.job_class.key
        choice = self.ground.later.tree.fungibility_of(key.tenant)
        refused: list[tuple[Option, Reason]] = []
        by_borrowing: tuple[Option, Sequence[Member]] | None = None
        for option in entry.options:
            answer = self._try(key, option)
            if isinstance(answer, list):
                if choice.when_can_borrow is WhenCanBorrow.BORROW or not self._borrows(key, option):
                    return self._start(entry, option, answer)
                by_borrowing = by_borrowing or (option, answer)
                continue
            refused.append((option, answer))
            if choice.when_can_preempt is WhenCanPreempt.PREEMPT and self._taking.would_stop(entry, option, answer, choice):
                break
        if by_borrowing is not None:
            return self._start(entry, *by_borrowing)
        found = self._taking.best(entry, refused)
        if found is not None:
            self._nominate(entry, *found)
            return _Outcome.NOMINATED
        self._block(entry, refused)
        return _Outcome.BLOCKED

    def _borrows(self, key: ClassKey, option: Option) -> bool:
        return bool(gate.borrowed_by(self.ground.later.tree, key.tenant, option))

    def _block(self, entry: Entry, refused: Sequence[tuple[Option, Reason]]) -> None:
        if not refused:
            raise ValueError(f"class of {entry.job_class.key.tenant}: it has no flavor left, so the fixed gates should have refused it")
        option, reason = max(refused, key=lambda item: _GATE[item[1].code])
        if reason is _NO_PLACE:
            self._unexplained.append((len(self.reasons), option))
        self.reasons.append(ClassReason(entry.job_class.key, reason))
        if reason.code in _CAPACITY or reason.code is ReasonCode.WOULD_DELAY:
            self._queue_for_hold(entry, option)

    def _try(self, key: ClassKey, option: Option) -> list[Member] | Reason:
        now = self.ground.now
        refusal = gate.over_quota(now.tree, key.tenant, option)
        if refusal is None and self.ground.is_parted:
            refusal = gate.over_quota(self.ground.later.tree, key.tenant, option)
        refusal = refusal or self.users.over_cap(key)
        if refusal is not None:
            return refusal
        answer = self._placing.find(now.fleet, key, option, from_ms=self.snapshot.now_ms)
        if answer is None:
            return _NO_PLACE
        if self._find_holds(option.model):  # it could start, so it matters now in whose way it would be
            answer = self._placing.find(now.fleet, key, option, from_ms=self.snapshot.now_ms)
        if isinstance(answer, list):
            return answer
        held_from_ms = answer.start_ms if answer is not None else self.snapshot.now_ms
        return Reason(ReasonCode.WOULD_DELAY, {"limit_ms": key.limit_ms, "held_from_ms": held_from_ms}, Unblock.ANY_JOB_ENDS)

    def _explain(self, key: ClassKey, option: Option) -> Reason:
        """Say why there is no place, once for all that ask for the same."""
        windows_matter = () if self._placing.windows.is_empty else (key.tenant, self._placing.lasts_ms(key))
        question = (key.shape, key.where, option.model, windows_matter)
        known = self._explained.get(question)
        if known is None:
            known = self._explained[question] = self._explain_anew(key, option)
        return known

    def _explain_anew(self, key: ClassKey, option: Option) -> Reason:
        """Say why there is no place: because of a window, or because too little is free."""
        fleet, policy = self.ground.now.fleet, self.snapshot.policy
        allowed = fleet.allowed(key.shape, key.where)
        if not self._placing.windows.is_empty:
            lasts_ms, now_ms = self._placing.lasts_ms(key), self.snapshot.now_ms
            closed = self._placing.windows.closed_to(key.tenant, now_ms, now_ms + lasts_ms)
            if closed.windows and place.place(fleet, key.shape, model=option.model, policy=policy, allowed=allowed, where=key.where):
                return windows.reason(closed, key.limit_ms, now_ms, grace_ms=lasts_ms - key.limit_ms)
        return place.explain(fleet, key.shape, model=option.model, policy=policy, allowed=allowed, where=key.where)

    def _place_later(self, request: Request) -> list[Member] | None:
        """Place a job in the later state without delaying a hold."""
        fleet = self.ground.later.fleet
        if request.option.model is not None and fleet.free_total.get(request.option.model, 0) < request.key.shape.slices:
            return None
        answer = self._placing.find(fleet, request.key, request.option, from_ms=self._taking.releases_ms)
        return answer if isinstance(answer, list) else None

    def _start(self, entry: Entry, option: Option, members: Sequence[Member]) -> _Outcome:
        self._bind(entry.job_class.key, entry.job, option, members)
        entry.started += 1
        return _Outcome.STARTED

    def _bind(self, key: ClassKey, job: PendingJob, option: Option, members: Sequence[Member]) -> None:
        borrowed = gate.borrowed_by(self.ground.now.tree, key.tenant, option)
        self.ground.start(key.tenant, option.usage, members, key.shape)
        self.users.add(key.tenant, key.user, key.shape.milli_gpu)
        self._occupy(key, job.seq, option, members, from_ms=self.snapshot.now_ms)
        fleet = self.ground.now.fleet
        self.starts.append(Start(job.job, job.attempt, fleet.slices(members), fleet.node_names(members), option.flavor, borrowed))

    def _occupy(self, key: ClassKey, seq: int, option: Option, members: Sequence[Member], *, from_ms: int) -> None:
        """Let the holds and later walks into the future know of a start."""
        ends_ms = from_ms + self._placing.lasts_ms(key)
        if self._placing.holds.all:
            self._placing.holds.take_beside(members, key.shape, from_ms=from_ms, until_ms=ends_ms)
        self._new_leases.append(Lease(ends_ms, seq, key.tenant, key.shape, members, option.usage))

    def _nominate(self, entry: Entry, option: Option, found: Found) -> None:
        key, job = entry.job_class.key, entry.job
        self.ground.keep_for_now(victim.occupant for victim in found.victims)
        for victim in found.victims:
            self._taking.occupants.take(victim.occupant)
            self.preemptions.append(Preemption(victim.occupant.running.job, victim.cause, job.job))
            if self._running is not None:
                del self._running[victim.occupant.running.job]
        leaving = self._taking.leaving(found)
        releases_ms = max((at_ms for _, at_ms in leaving), default=self._taking.releases_ms)
        fleet = self.ground.later.fleet
        nomination = Nomination(
            job=job.job,
            attempt=job.attempt,
            slices=fleet.slices(found.members),
            expires_ms=releases_ms + self.snapshot.policy.nomination_timeout_ms,
            nodes=fleet.node_names(found.members),
            flavor=option.flavor,
            victims=tuple(name for name, _ in leaving),
            releases_ms=releases_ms,
            key=key,
        )
        self._hold_place(key, job.seq, nomination, option, found.members)
        entry.started += 1

    def _hold_place(self, key: ClassKey, seq: int, nomination: Nomination, option: Option, members: Sequence[Member]) -> None:
        self.nominations.append(nomination)
        self._nominated.setdefault(key, nomination)
        self.ground.nominate(key.tenant, option.usage, members, key.shape)
        self.users.add(key.tenant, key.user, key.shape.milli_gpu)
        self._occupy(key, seq, option, members, from_ms=max(nomination.releases_ms, self.snapshot.now_ms))

    def _queue_for_hold(self, entry: Entry, option: Option) -> None:
        left = self._depth_left.setdefault(option.model, self.snapshot.policy.backfill_depth)
        jobs = min(left, len(entry.waiting))
        if jobs:
            self._depth_left[option.model] = left - jobs
            self._without_hold.append((entry, option, jobs))

    def _find_holds(self, model: str | None) -> bool:
        """Find the forward start times that are due; True when there was one to find.

        Jobs without GPUs compete for CPU and memory everywhere, so they ask for all.
        """
        due: list[tuple[Entry, Option, int]] = []
        later: list[tuple[Entry, Option, int]] = []
        for item in self._without_hold:
            (due if model is None or item[1].model in (model, None) else later).append(item)
        if not due:
            return False
        self._without_hold = later
        if self._running is None:
            gone = {item.job for item in self.preemptions}
            self._running = {job: lease for job, lease in backfill.leases_of(self.snapshot).items() if job not in gone}
        leases = [*self._running.values(), *self._new_leases]
        future = Future(self.ground.later.fleet, leases, now_ms=self.snapshot.now_ms, placing=self._placing)
        for entry, option, jobs in due:
            future.hold(entry.job_class.key, (option,), jobs=jobs)
        return True
