"""Order: which class is considered next. Classes are few, jobs many; only the first job of each class competes.

Owns the stated order of the design, section 6. Does not own what happens to the class considered (decide.py), which tells the
queue afterwards: `started` (its usage grew, the next job of the class competes) or `blocked` (all of the class waits).

Fair sharing on: down the quota tree, at each cohort the child with the lower weighted share after the start, then higher
priority, earlier submit time, lower arrival sequence; inside a tenant priority comes before the share of its projects, and inside a
project before what its users hold. With a memory of the past (quotas/decay.py) shares count it. Roots share nothing, so they
compare by priority and age. Fair sharing off: starts within the tenant's own quota first (on the first flavor that quota leaves the class),
then priority, submit time, sequence.
Only the path of the class that started is compared again: the rest cannot have changed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quotas import share
from quotas.decay import Past
from quotas.tree import NodeKind, Tree, WhenCanBorrow
from scheduler.decision import gate
from scheduler.decision.gate import Option
from scheduler.decision.snapshot import JobClass, PendingJob
from scheduler.decision.users import Users

Rank = tuple[int, int, int]  # priority, submit time and sequence, smaller first


@dataclass(slots=True)
class Entry:
    """A class in the queue: its flavors that passed the fixed gates, its jobs that compete, and how many of them were served."""

    job_class: JobClass
    options: tuple[Option, ...]
    jobs: Sequence[PendingJob]
    started: int = 0

    @property
    def job(self) -> PendingJob:
        """The first job that has not started."""
        return self.jobs[self.started]

    @property
    def is_spent(self) -> bool:
        """True when every job of the class has started."""
        return self.started >= len(self.jobs)

    @property
    def waiting(self) -> Sequence[PendingJob]:
        """The jobs that have not started."""
        return self.jobs[self.started :]

    def rank(self) -> Rank:
        """Return priority, submit time and sequence so that smaller comes first."""
        return (-self.job_class.key.priority, self.job.submitted_ms, self.job.seq)


class Queue(Protocol):
    """What `decide` asks; each call is about the entry that `head` returned last."""

    def head(self) -> Entry | None:
        """Return the entry to consider next, or None when all are spent or blocked."""

    def started(self) -> None:
        """Say that the head's first job started and that its usage is charged."""

    def blocked(self) -> None:
        """Say that no further job of the head can start in this decision."""

    def recompute(self) -> None:
        """Say that usage also went down somewhere, so that everybody's place may have changed."""


def queue(entries: Sequence[Entry], tree: Tree, *, fair_sharing: bool, users: Users, past: Past | None = None) -> Queue:
    """Return the queue for one decision. `tree` and `users` are the decision's own: the queue reads usage from them as it grows."""
    return FairQueue(entries, tree, users, past) if fair_sharing else PriorityQueue(entries, tree)


class PriorityQueue:
    """One heap for all. An entry's place mostly gets worse while others start, so it is checked again when it comes up.

    It gets better where a class would borrow its first flavor, that one is used up meanwhile, and a later one lies within quota. Such
    classes are looked at after each start; where their place is better they stand twice in the heap, and the older place counts no more.
    """

    def __init__(self, entries: Sequence[Entry], tree: Tree) -> None:
        self._entries = entries
        self._tree = tree
        self._choosers = [at for at, entry in enumerate(entries) if len(entry.options) > 1 and self._takes_by_borrowing(entry)]
        self._places: list[tuple[bool, Rank] | None] = [self._key(entry) for entry in entries]  # None: spent or blocked
        self._heap: list[tuple[tuple[bool, Rank], int]] = []
        self._fill()

    def _takes_by_borrowing(self, entry: Entry) -> bool:
        return self._tree.fungibility_of(entry.job_class.key.tenant).when_can_borrow is WhenCanBorrow.BORROW

    def _key(self, entry: Entry) -> tuple[bool, Rank]:
        """Return by what an entry competes: whether it borrows on the first flavor that quota leaves it, then its rank."""
        leaf = entry.job_class.key.tenant
        borrows = True
        for option in entry.options:
            if not gate.borrows(self._tree, leaf, option):
                borrows = False
                break
            if len(entry.options) > 1 and self._takes_by_borrowing(entry) and gate.over_quota(self._tree, leaf, option) is None:
                break
        return (borrows, entry.rank())

    def head(self) -> Entry | None:
        while self._heap:
            key, at = self._heap[0]
            if key != self._places[at]:
                heapq.heappop(self._heap)
                continue
            current = self._places[at] = self._key(self._entries[at])
            if current == key:
                return self._entries[at]
            heapq.heapreplace(self._heap, (current, at))
        return None

    def started(self) -> None:
        _, at = heapq.heappop(self._heap)
        self._places[at] = None
        if not self._entries[at].is_spent:
            self._put(at, self._key(self._entries[at]))
        for chooser in self._choosers:
            known = self._places[chooser]
            if known is not None and known[0] and (key := self._key(self._entries[chooser])) < known:
                self._put(chooser, key)

    def _put(self, at: int, key: tuple[bool, Rank]) -> None:
        self._places[at] = key
        heapq.heappush(self._heap, (key, at))

    def blocked(self) -> None:
        _, at = heapq.heappop(self._heap)
        self._places[at] = None

    def recompute(self) -> None:
        self._places = [self._key(entry) if place is not None else None for entry, place in zip(self._entries, self._places, strict=True)]
        self._fill()

    def _fill(self) -> None:
        self._heap = [(place, at) for at, place in enumerate(self._places) if place is not None]
        heapq.heapify(self._heap)


_Candidate = tuple[Rank, int]  # rank, place in the list of entries
_ROOTS = ""  # stands above all roots; no quota node has an empty name


class FairQueue:
    """A tournament down the quota tree: every inner node keeps its children in a heap by their best candidate."""

    def __init__(self, entries: Sequence[Entry], tree: Tree, users: Users, past: Past | None) -> None:
        self._entries = entries
        self._tree = tree
        self._users = users
        self._past = past
        # What a start adds to the shares of its path, by place in the list of entries: of the first flavor.
        self._usage = [tree.counted(entry.job_class.key.tenant, entry.options[0].usage) for entry in entries]
        # By leaf and user: the classes of one user compare by rank alone, so each user has one candidate at a time.
        self._classes: dict[str, dict[str | None, list[tuple[Rank, int]]]] = {}
        for at, entry in enumerate(entries):
            key = entry.job_class.key
            self._classes.setdefault(key.tenant, {}).setdefault(key.user, []).append((entry.rank(), at))
        for by_user in self._classes.values():
            for classes in by_user.values():
                heapq.heapify(classes)
        self._inner = {name for leaf in self._classes for name in tree.path(leaf)[1:]}
        # Deepest first, so that the children of a node have their candidates before the node does.
        self._deepest_first = sorted(self._inner | set(self._classes), key=lambda name: (-len(tree.path(name)), name))
        self._heaps: dict[str, list[tuple[Any, str, _Candidate]]] = {}
        self.recompute()

    def recompute(self) -> None:
        self._heaps = {_ROOTS: [], **{name: [] for name in self._inner}}
        for name in self._deepest_first:
            candidate = self._leaf_candidate(name) if name in self._classes else self._inner_candidate(name)
            if candidate is not None:
                parent = self._tree.node(name).parent or _ROOTS
                heapq.heappush(self._heaps[parent], (self._key(parent, name, candidate), name, candidate))

    def _leaf_candidate(self, leaf: str) -> _Candidate | None:
        by_user = self._classes[leaf]
        if not by_user:
            return None
        if len(by_user) == 1:
            (classes,) = by_user.values()
            return classes[0]
        return min(
            (classes[0] for classes in by_user.values()),
            key=lambda best: (best[0][0], self._users.held(leaf, self._entries[best[1]].job_class.key.user), best[0]),
        )

    def _inner_candidate(self, name: str) -> _Candidate | None:
        heap = self._heaps[name]
        return heap[0][2] if heap else None

    def _key(self, parent: str, child: str, candidate: _Candidate) -> Any:
        """Return by what a child competes below its parent. Its share is taken as it is now: a sibling's start changes what lies above."""
        rank, at = candidate
        if parent == _ROOTS:
            return rank
        value = share.after_at(self._tree, child, self._entries[at].job_class.key.tenant, self._usage[at], self._past)
        if self._tree.node(parent).kind is NodeKind.TENANT:
            return (rank[0], value, rank[1:])
        return (value, rank)

    def head(self) -> Entry | None:
        roots = self._heaps[_ROOTS]
        return self._entries[roots[0][2][1]] if roots else None

    def started(self) -> None:
        self._replace_head(is_blocked=False)

    def blocked(self) -> None:
        self._replace_head(is_blocked=True)

    def _replace_head(self, *, is_blocked: bool) -> None:
        at = self._heaps[_ROOTS][0][2][1]
        entry = self._entries[at]
        key = entry.job_class.key
        by_user = self._classes[key.tenant]
        classes = by_user[key.user]
        if is_blocked or entry.is_spent:
            heapq.heappop(classes)
            if not classes:
                del by_user[key.user]
        else:
            heapq.heapreplace(classes, (entry.rank(), at))
        self._bubble(key.tenant)

    def _bubble(self, leaf: str) -> None:
        """Bring a leaf's new candidate up to the roots. The leaf won at every level, so it stands on top of every heap of its path."""
        candidate = self._leaf_candidate(leaf)
        for name in self._tree.path(leaf):
            parent = self._tree.node(name).parent or _ROOTS
            heap = self._heaps[parent]
            if candidate is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (self._key(parent, name, candidate), name, candidate))
            candidate = heap[0][2] if heap else None
