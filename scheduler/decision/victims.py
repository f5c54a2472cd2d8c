"""Victims: whom a pending job may take from, by the preemption policy of its quota leaf and the place of both in the quota tree.

Owns Kueue's rules about candidates. Does not own their number (preempt.py takes as few as it can) or their order inside a leaf
(occupants.py). Three kinds of candidates, tried in this order:

1. *hierarchy*: the pending job fits the own quota of its leaf, or of a cohort below the node that both have in common. It takes back
   what was lent, so `reclaim_within_cohort` alone decides.
2. *priority*: it would borrow itself. Then it may take only while it does not borrow in the end, or from lower priorities where
   `borrow_within_cohort` says so.
3. *own*: jobs of its own tenant, by `within_tenant`.

A job that was itself stopped for another does not fight back: it takes what the hierarchy gives it, and own jobs of lower priority,
nothing else. So every job takes by the weaker rights at most once, and without new arrivals the taking comes to an end.

Others than the own are candidates only while they borrow: at their leaf and at every node between it and the common one. A sibling
project counts as own, but only while it holds more than its own quota, so no project loses what it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from quotas.amount import Amount
from quotas.tree import BorrowPreempt, Preemption, PreemptWithin, Reclaim, Tree
from scheduler.decision.gate import Option
from scheduler.decision.occupants import Occupant, Occupants
from scheduler.decision.plan import PreemptionCause
from scheduler.decision.snapshot import ClassKey, PendingJob


@dataclass(frozen=True, slots=True)
class Request:
    """The job that wants room. `needed` are the resources for which somebody has to leave."""

    key: ClassKey
    job: PendingJob
    option: Option
    needed: tuple[str, ...]
    policy: Preemption

    @property
    def leaf(self) -> str:
        """The quota node that it charges."""
        return self.key.tenant

    @property
    def usage(self) -> Mapping[str, Amount]:
        """What it charges there."""
        return self.option.usage


class Kind(IntEnum):
    """By what right a candidate may be taken; smaller is tried first."""

    HIERARCHY = 0
    WHILE_BORROWING = 1
    WITHOUT_BORROWING = 2
    OWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A running job that a request may take from. `between` are the nodes that have to hold more than their own quota."""

    occupant: Occupant
    kind: Kind
    between: tuple[str, ...]

    @property
    def cause(self) -> PreemptionCause:
        """What is told to the victim."""
        if self.kind is Kind.OWN:
            return PreemptionCause.WITHIN_TENANT
        return PreemptionCause.BORROW if self.kind is Kind.WHILE_BORROWING else PreemptionCause.RECLAIM


def may_ask(tree: Tree, request: Request, *, fair_sharing: bool) -> bool:
    """Tell whether a job over quota may look for victims: it fits its tenant's or a cohort's own quota, or may take while borrowing."""
    policy = request.policy
    if policy.borrow_within_cohort is not BorrowPreempt.NEVER or (fair_sharing and policy.reclaim_within_cohort is not Reclaim.NEVER):
        return True
    tenant = tree.tenant_of(request.leaf)
    return all(
        request.usage[resource] <= tree.subtree_quota(tenant, resource)
        or tree.fits_below_root(request.leaf, resource, request.usage[resource])
        for resource in request.needed
    )


def candidates(tree: Tree, occupants: Occupants, request: Request) -> list[Candidate]:
    """Return everybody that the request may take from, in the order in which Kueue would."""
    found = [*_own(tree, occupants, request), *_others(tree, occupants, request)]
    # The two kinds of priority candidates share one order: the first of them that may go is the least important.
    order = {Kind.HIERARCHY: 0, Kind.WHILE_BORROWING: 1, Kind.WITHOUT_BORROWING: 1, Kind.OWN: 2}
    found.sort(key=lambda candidate: (order[candidate.kind], candidate.occupant.rank))
    return found


def is_valid(tree: Tree, candidate: Candidate, needed: Sequence[str], *, borrowing: bool) -> bool:
    """Tell whether a candidate may still be taken now that others were: whoever fell back to its own quota is safe."""
    if borrowing and candidate.kind is Kind.WITHOUT_BORROWING:
        return False
    return not any(tree.is_within(name, needed) for name in candidate.between)


def _own(tree: Tree, occupants: Occupants, request: Request) -> Iterator[Candidate]:
    if request.policy.within_tenant is PreemptWithin.NEVER:
        return
    tenant = tree.tenant_of(request.leaf)
    for leaf in occupants.leaves_of(tree.path(tenant)[-1]):
        if tree.tenant_of(leaf) != tenant:
            continue
        between = () if leaf == request.leaf else _between(tree, leaf, request.leaf)
        if any(tree.is_within(name, request.needed) for name in between):
            continue
        for occupant in occupants.of(leaf):
            if _holds(occupant, request.needed) and _outranks_own(request, occupant):
                yield Candidate(occupant, Kind.OWN, between)


def _outranks_own(request: Request, occupant: Occupant) -> bool:
    theirs = occupant.running
    if theirs.priority < request.key.priority:
        return True
    is_newer_equal = theirs.priority == request.key.priority and request.job.submitted_ms < theirs.submitted_ms
    may_take_equal = request.policy.within_tenant is PreemptWithin.LOWER_OR_NEWER_EQUAL and not request.job.was_preempted
    return is_newer_equal and may_take_equal


def _others(tree: Tree, occupants: Occupants, request: Request) -> Iterator[Candidate]:
    reclaim = request.policy.reclaim_within_cohort
    if reclaim is Reclaim.NEVER:
        return
    tenant = tree.tenant_of(request.leaf)
    advantage = _advantages(tree, request)
    for leaf in occupants.leaves_of(tree.path(tenant)[-1]):
        if tree.tenant_of(leaf) == tenant:
            continue
        between = _between(tree, leaf, request.leaf)
        if any(tree.is_within(name, request.needed) for name in between):
            continue
        has_advantage = advantage[tree.node(between[-1]).parent or ""]
        if request.job.was_preempted and not has_advantage:
            continue
        for occupant in occupants.of(leaf):
            is_lower = occupant.running.priority < request.key.priority
            if _holds(occupant, request.needed) and (is_lower or reclaim is Reclaim.ANY):
                kind = Kind.HIERARCHY if has_advantage else _priority_kind(request, occupant, is_lower=is_lower)
                yield Candidate(occupant, kind, between)


def _priority_kind(request: Request, occupant: Occupant, *, is_lower: bool) -> Kind:
    policy = request.policy
    is_below_threshold = policy.borrow_max_priority is None or occupant.running.priority <= policy.borrow_max_priority
    may_borrow = policy.borrow_within_cohort is BorrowPreempt.LOWER_PRIORITY and is_lower and is_below_threshold
    return Kind.WHILE_BORROWING if may_borrow else Kind.WITHOUT_BORROWING


def _advantages(tree: Tree, request: Request) -> dict[str, bool]:
    """For each node above the request's leaf: whether the request fits the own quota of something below that node on its path."""
    has_advantage = False
    rest = dict(tree.counted(request.leaf, request.usage))
    advantage: dict[str, bool] = {}
    for name in tree.path(request.leaf):
        advantage[name] = has_advantage
        has_advantage = has_advantage or tree.fits_within(name, rest)
        rest = {resource: tree.bubbling(name, resource, wanted) for resource, wanted in rest.items()}
    return advantage


def _between(tree: Tree, leaf: str, other: str) -> tuple[str, ...]:
    """Return the nodes from `leaf` up to just below the lowest node that it has in common with `other`."""
    above = set(tree.path(other))
    return tuple(name for name in tree.path(leaf) if name not in above)


def _holds(occupant: Occupant, needed: Sequence[str]) -> bool:
    return any(occupant.usage.get(resource, 0) > 0 for resource in needed)
