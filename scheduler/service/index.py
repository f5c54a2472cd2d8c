"""The live view: everything that decisions rest on, kept up to date in memory by what changed, never read anew as a whole.

Owns the parts of a snapshot (fleet, quota tree with usage, queues, running jobs, nominations, the memory of fair sharing) and the open
leases that the loop reconciles. It is told which jobs changed and reads their rows; it decides nothing and writes nothing. Whatever goes
wrong, it is dropped and built again from rows. `snapshot` must equal one made from rows: tests/service/test_index.py holds it to that
after every step. Whoever changes a row of a job or lease tells the index with `refresh`, or the loop forgets it (`Loop` owns that).
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quotas.decay import Memory
from quotas.tree import Tree
from scheduler.decision.fit import Fleet
from scheduler.decision.plan import Plan, Start
from scheduler.decision.snapshot import (
    HOUR_MS,
    ClassKey,
    JobClass,
    PendingJob,
    Pool,
    RunningJob,
    Snapshot,
    model_of,
    order_classes,
    usage_of,
)
from store.leases import OpenLease
from store.live_rows import Answer, ClassRow
from store.scheduling import FleetRows, Loaded, NominationRow, Rows, TermsRows, WorkRows, by_pool, charged

CLASSES_KEPT_MAXIMUM = 50_000


@dataclass(frozen=True, slots=True)
class _Held:
    """A running job as its row has it, with its project, and as it is charged now."""

    row: RunningJob
    project: str
    job: RunningJob


@dataclass(slots=True)
class Index:
    """The live view. Methods change it; what `loaded` returns stays as it is until the next change, or for good with `is_frozen`."""

    fleet: FleetRows
    terms: TermsRows
    cursor: int = 0  # of the event feed
    leases: dict[str, OpenLease] = field(default_factory=dict)
    _state: Fleet = field(init=False)
    _tree: Tree = field(init=False)
    _held: dict[str, _Held] = field(default_factory=dict)  # by lease
    _leases_of: dict[str, set[str]] = field(default_factory=dict)  # by job
    _classes: dict[str, ClassRow] = field(default_factory=dict)
    _keys: dict[str, ClassKey] = field(default_factory=dict)
    _answers: dict[str, Answer] = field(default_factory=dict)
    _queues: dict[str, list[PendingJob]] = field(default_factory=dict)  # by class, in order of arrival
    _class_of: dict[str, tuple[str, int]] = field(default_factory=dict)  # queued job -> (class, sequence number)
    _nominations: Sequence[NominationRow] = ()
    _preemptions: deque[tuple[Pool, int]] = field(default_factory=deque)
    _memory: Memory | None = None
    version: int = 0  # moves with every change but the passing of time
    touched: set[str] = field(default_factory=set)  # leases that changed and were not reconciled yet

    def __post_init__(self) -> None:
        self._state = Fleet(self.fleet.nodes)
        self._tree = self.terms.tree.copy()

    @classmethod
    def of(cls, rows: Rows, leases: Iterable[OpenLease], cursor: int) -> Index:
        """Build the view from scratch."""
        index = cls(rows.fleet, rows.terms, cursor)
        index._preemptions.extend(rows.preemptions)
        index._memory = rows.memory
        index.refresh((), WorkRows(rows.queued, rows.classes, rows.running), leases)
        index._nominations = rows.nominations
        index._start_memory(rows.now_ms)
        return index

    @property
    def known_classes(self) -> Container[str]:
        """The classes whose rows need not be read again."""
        return self._classes

    @property
    def nominations(self) -> Sequence[NominationRow]:
        """What is held for whom, in order."""
        return self._nominations

    @property
    def memory(self) -> Memory | None:
        """The memory of fair sharing, None when it does not look back."""
        return self._memory

    # --- time and terms

    def pass_time(self, now_ms: int) -> None:
        """Say that it is `now_ms` and that until then nothing changed."""
        if self._memory is not None:
            self._memory.observe(self._tree, now_ms)
        while self._preemptions and self._preemptions[0][1] <= now_ms - HOUR_MS:
            self._preemptions.popleft()

    def change_terms(self, terms: TermsRows, now_ms: int) -> None:
        """Replace what operators set; usage stays, even where it now lies above a quota."""
        self.version += 1
        self.terms = terms
        self._tree = terms.tree.copy()
        self._keys = {class_id: row.key_of(terms.tree) for class_id, row in self._classes.items()}
        for lease_id, held in self._held.items():
            job = charged(held.row, held.project, terms.tree)
            self._held[lease_id] = replace(held, job=job)
            self._charge(job)
        self._start_memory(now_ms)

    def _start_memory(self, now_ms: int) -> None:
        """Begin to remember where that was not so yet; a memory from rows catches up with the time since it was kept."""
        policy = self.terms.policy
        half_life_ms = policy.fair_share_half_life_ms if policy.fair_sharing else 0
        if not half_life_ms:
            self._memory = None
        elif self._memory is None or self._memory.half_life_ms != half_life_ms:
            self._memory = Memory(half_life_ms, now_ms)
        else:
            self._memory.observe(self._tree, now_ms)

    # --- jobs and leases

    def refresh(self, job_ids: Iterable[str], work: WorkRows, leases: Iterable[OpenLease]) -> None:
        """Make what is known of these jobs equal to their rows."""
        self.version += 1
        for job_id in job_ids:
            self._dequeue(job_id)
            for lease_id in self._leases_of.pop(job_id, ()):
                self._let_go(lease_id)
        for class_id, row in work.classes.items():
            self._learn(class_id, row)
        for class_id, jobs in work.queued.items():
            for job in jobs:
                self._enqueue(class_id, job)
        for running, project in work.running:
            self.hold(running, project)
        for lease in leases:
            self.leases[lease.id] = lease
            self.touched.add(lease.id)
        if len(self._classes) > CLASSES_KEPT_MAXIMUM:
            self._forget_idle_classes()

    def started(self, start: Start, lease: OpenLease) -> None:
        """Say that a queued job of the view got a lease, exactly as its rows say now."""
        self.version += 1
        class_id, seq = self._class_of[start.job]
        queue = self._queues[class_id]
        pending, row = queue[bisect.bisect_left(queue, seq, key=_sequence)], self._classes[class_id]
        self._dequeue(start.job)
        by_replica = {item.replica: item.node for item in start.slices}
        running = RunningJob(
            job=start.job,
            attempt=start.attempt,
            lease_id=lease.id,
            tenant=row.tenant_id,
            shape=row.key.shape,
            started_ms=lease.granted_at_ms,
            limit_ms=lease.limit_ms + lease.grace_ms,
            seq=pending.seq,
            submitted_ms=pending.submitted_ms,
            flavor=start.flavor,
            slices=start.slices,
            nodes=tuple(by_replica.get(replica, lease.parts[0].node) for replica in range(row.key.shape.replicas)),
            priority=row.key.priority,
            is_preemptible=row.key.is_preemptible,
            user=row.key.user,
            grace_ms=lease.grace_ms,
        )
        self.hold(running, row.project_id)
        self.leases[lease.id] = lease
        self.touched.add(lease.id)

    def hold(self, running: RunningJob, project: str) -> None:
        """Take a running job in; `running` is charged to its tenant as its row is."""
        job = charged(running, project, self.terms.tree)
        self._held[job.lease_id] = _Held(running, project, job)
        self._leases_of.setdefault(job.job, set()).add(job.lease_id)
        self._state.hold(job.shape, job.slices, job.nodes)
        self._charge(job)

    def _let_go(self, lease_id: str) -> None:
        held = self._held.pop(lease_id)
        self.leases.pop(lease_id, None)
        self.touched.discard(lease_id)
        self._state.release(held.job.shape, held.job.slices, held.job.nodes)
        if held.job.tenant in self._tree:
            self._tree.remove(held.job.tenant, usage_of(held.job.shape, model_of(held.job.flavor, self.fleet.flavors)))

    def _charge(self, job: RunningJob) -> None:
        if job.tenant in self._tree:
            self._tree.add(job.tenant, usage_of(job.shape, model_of(job.flavor, self.fleet.flavors)))

    def _learn(self, class_id: str, row: ClassRow) -> None:
        self._classes[class_id] = row
        self._keys[class_id] = row.key_of(self.terms.tree)
        self._answers[class_id] = row.answer

    def _forget_idle_classes(self) -> None:
        """Drop classes of which nothing is queued or nominated: a tenant that varies its jobs cannot fill the memory."""
        used = self._queues.keys() | {item.class_id for item in self._nominations}
        for class_id in self._classes.keys() - used:
            del self._classes[class_id], self._keys[class_id], self._answers[class_id]

    def _enqueue(self, class_id: str, job: PendingJob) -> None:
        queue = self._queues.setdefault(class_id, [])
        if not queue or queue[-1].seq < job.seq:
            queue.append(job)
        else:
            bisect.insort(queue, job, key=_sequence)
        self._class_of[job.job] = (class_id, job.seq)

    def _dequeue(self, job_id: str) -> None:
        place = self._class_of.pop(job_id, None)
        if place is None:
            return
        class_id, seq = place
        queue = self._queues[class_id]
        del queue[bisect.bisect_left(queue, seq, key=_sequence)]
        if not queue:
            del self._queues[class_id]

    def answered(self, class_id: str, answer: Answer) -> None:
        """Say that a class's row has a new answer."""
        self._answers[class_id] = answer

    def preempted(self, running: RunningJob, at_ms: int) -> None:
        """Say that a job was told to leave for another: its pool lost one."""
        site = self._state.layout.nodes[self._state.layout.position[running.nodes[0]]].site
        self._preemptions.append(((site, model_of(running.flavor, self.fleet.flavors) or ""), at_ms))

    def keep_handles(self, handles: Mapping[str, str]) -> None:
        """Say that the executor's handles, JSON by lease, are in the rows."""
        for lease_id, handle in handles.items():
            if lease_id in self.leases:  # an answer may come when the lease is released already
                self.leases[lease_id] = replace(self.leases[lease_id], handle=handle)

    def nominate(self, nominations: Sequence[NominationRow]) -> None:
        """Replace the nominations."""
        self.version += 1
        self._nominations = nominations

    # --- what others read

    def loaded(self, now_ms: int, *, is_frozen: bool = False) -> Loaded:
        """Return the snapshot of `now_ms` with the keys of its parts."""
        waiting = [class_id for class_id in self._queues if self._classes[class_id].tenant_id not in self.terms.suspended]
        snapshot = Snapshot(
            now_ms=now_ms,
            policy=self.terms.policy,
            nodes=self.fleet.nodes,
            flavors=self.fleet.flavors,
            tree=self._tree.copy() if is_frozen else self._tree,
            fleet=self._state.copy() if is_frozen else self._state,
            running=sorted((held.job for held in self._held.values()), key=_arrival),
            classes=order_classes(self._job_class(class_id, is_frozen=is_frozen) for class_id in waiting),
            capacity_reservations=[item for item in self.terms.calendar.reservations if item.end_ms > now_ms],
            maintenance_windows=[item for item in self.terms.calendar.maintenance if item.end_ms > now_ms],
            nominations=[replace(item.nomination, key=self._keys[item.class_id]) for item in self._nominations],
            recent_preemptions=by_pool(self._preemptions),
            past=self._memory.past() if self._memory is not None else None,
        )
        return Loaded(
            snapshot,
            {self._keys[class_id]: class_id for class_id in waiting},
            self.fleet.node_ids,
            self.fleet.device_ids,
            self._answers,
            sorted(self._queues.keys() - set(waiting)),
        )

    def _job_class(self, class_id: str, *, is_frozen: bool) -> JobClass:
        queue = self._queues[class_id]
        return JobClass(self._keys[class_id], tuple(queue) if is_frozen else queue, self._classes[class_id].grace_ms)

    def classes_of(self, plan: Plan) -> Mapping[str, str]:
        """Return the class of each queued job that the plan nominates."""
        return {item.job: self._class_of[item.job][0] for item in plan.nominations if item.job in self._class_of}


def _sequence(job: PendingJob) -> int:
    return job.seq


def _arrival(job: RunningJob) -> tuple[int, int]:
    return (job.seq, job.attempt)
