"""Preempt: the smallest set of victims whose leaving lets one job start, or None when there is none.

Owns the search; whom it may take from is victims.py, the order among equals occupants.py. It works on the caller's tree and fleet:
on success the victims are cleared from both and the job itself is not charged yet, on failure both are as they were.

Candidates are taken in order until the job fits quota *and* place, then given back in reverse while it still fits. Without fair
sharing one or two attempts are made, with and without borrowing. With fair sharing the next victim comes from the node with the
highest weighted share, going down from the root, as long as that is just: first only if, after the start, the taker's share is at
most what the loser keeps ("final share"), then also if it is less than what the loser had ("initial share"), once per leaf. A job that
stays within its tenant's own quota takes back without comparing. Shares here are always the present ones, never decayed: taking must
change what is compared, or two tenants could take from one another for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quotas import amount, share
from quotas.amount import Amount
from quotas.share import NOTHING, Share
from quotas.tree import BorrowPreempt, Usage
from scheduler.decision import gate, victims
from scheduler.decision.fit import Member
from scheduler.decision.ground import State
from scheduler.decision.occupants import Occupant, Occupants, Rank
from scheduler.decision.plan import PreemptionCause
from scheduler.decision.victims import Candidate, Kind, Request

Place = Callable[[Request], Sequence[Member] | None]


@dataclass(frozen=True, slots=True)
class Victim:
    """Somebody who has to leave, and why."""

    occupant: Occupant
    cause: PreemptionCause


@dataclass(frozen=True, slots=True)
class Found:
    """Where the job fits once the victims are gone."""

    members: Sequence[Member]
    victims: tuple[Victim, ...]


def find(state: State, occupants: Occupants, place: Place, request: Request, *, fair_sharing: bool) -> Found | None:
    """Return the victims that let the request start, cleared from `state`. An empty `request.needed` means that nobody can help."""
    if not request.needed:
        return None
    candidates = victims.candidates(state.tree, occupants, request)
    if not candidates:
        return None
    search = _Search(state, occupants, place, request)
    return search.by_share(candidates) if fair_sharing else search.by_order(candidates)


def clear_window(state: State, occupants: Occupants, place: Place, request: Request, holders: Sequence[Occupant]) -> Found | None:
    """Return those of `holders` whose leaving lets the request start inside its capacity reservation, cleared from `state`."""
    return _Search(state, occupants, place, request).one_by_one(holders)


class _Search:
    """One search: who was taken so far, and the ways to take and give back."""

    def __init__(self, state: State, occupants: Occupants, place: Place, request: Request) -> None:
        self.tree = state.tree
        self.fleet = state.fleet
        self.occupants = occupants
        self.place = place
        self.request = request
        self.taken: list[Victim] = []
        self._shares: dict[str, Share] = {}  # as they are now; what is charged or cleared at a leaf changes those on its path

    def _charge(self, leaf: str, usage: Usage) -> None:
        self.tree.add(leaf, usage)
        self._forget(leaf)

    def _clear(self, leaf: str, usage: Usage) -> None:
        self.tree.remove(leaf, usage)
        self._forget(leaf)

    def _forget(self, leaf: str) -> None:
        for name in self.tree.path(leaf):
            self._shares.pop(name, None)

    def _share(self, name: str) -> Share:
        known = self._shares.get(name)
        if known is None:
            known = self._shares[name] = share.of(self.tree, name)
        return known

    def by_order(self, candidates: Sequence[Candidate]) -> Found | None:
        """Take candidates in their order, in one or two attempts."""
        for borrowing in self._attempts(candidates):
            for candidate in candidates:
                if not victims.is_valid(self.tree, candidate, self.request.needed, borrowing=borrowing):
                    continue
                if self._take(candidate.occupant, candidate.cause) and self._fits(borrowing=borrowing) is not None:
                    return self._smallest(borrowing=borrowing)
            self._restore_all()
        return None

    def one_by_one(self, holders: Sequence[Occupant]) -> Found | None:
        """Take in the order given, by the right of a capacity reservation."""
        for occupant in holders:
            if self._take(occupant, PreemptionCause.CAPACITY_RESERVATION) and self._fits(borrowing=True) is not None:
                return self._smallest(borrowing=True)
        self._restore_all()
        return None

    def _attempts(self, candidates: Sequence[Candidate]) -> tuple[bool, ...]:
        """Whether the job may borrow in the end: what is tried first, and second."""
        kinds = {candidate.kind for candidate in candidates}
        may_not_borrow = self.request.policy.borrow_within_cohort is BorrowPreempt.NEVER
        if kinds <= {Kind.OWN} or (may_not_borrow and not self._is_below_own_quota()):
            return (True,)
        if may_not_borrow and Kind.HIERARCHY not in kinds:
            return (False, True)
        return (True, False)

    def _is_below_own_quota(self) -> bool:
        tenant = self.tree.tenant_of(self.request.leaf)
        return all(self.tree.usage(tenant, resource) < self.tree.subtree_quota(tenant, resource) for resource in self.request.needed)

    def by_share(self, candidates: Sequence[Candidate]) -> Found | None:
        """Take from whoever has the highest share, while that is just."""
        leaf, usage = self.request.leaf, self.request.usage
        self._charge(leaf, usage)  # shares are compared as they would be after the start
        found, rest = self._by_final_share(candidates)
        if not found and any(victim.occupant.leaf == leaf for victim in self.taken):
            # Taking from its own leaf lowered the taker's share, so what was unjust may have become just.
            found, rest = self._by_final_share(rest)
        found = found or self._by_initial_share(rest)
        self._clear(leaf, usage)
        if not found:
            self._restore_all()
            return None
        return self._smallest(borrowing=True)

    def _by_final_share(self, candidates: Sequence[Candidate]) -> tuple[bool, list[Candidate]]:
        """Return whether the job fits now, and the candidates that it was unjust to take."""
        queues = _by_leaf(candidates)
        takes_back = not self.tree.borrows_with(self.request.leaf, dict.fromkeys(self.request.needed, amount.ZERO))
        unjust: list[Candidate] = []
        while (leaf := self._highest(queues)) is not None:
            queue = queues[leaf]
            if queue[0].kind is Kind.OWN or takes_back:
                candidate = queue.popleft()
                if not self._still_borrows(candidate):
                    continue
                cause = PreemptionCause.WITHIN_TENANT if candidate.kind is Kind.OWN else PreemptionCause.RECLAIM
                if self._take(candidate.occupant, cause) and self._fits_beside_itself():
                    return True, []
                continue
            enough: dict[tuple[tuple[str, Amount], ...], bool] = {}  # by what a candidate holds: nothing else tells them apart here
            while queue:
                candidate = queue.popleft()
                if not self._still_borrows(candidate):
                    continue
                held = tuple(candidate.occupant.usage.items())
                if held not in enough:
                    enough[held] = self._keeps_enough(candidate)
                if not enough[held]:
                    unjust.append(candidate)
                    continue
                if self._take(candidate.occupant, PreemptionCause.FAIR_SHARE) and self._fits_beside_itself():
                    return True, []
                break  # shares changed: another node may have the highest now
        return False, unjust

    def _by_initial_share(self, candidates: Sequence[Candidate]) -> bool:
        """Take once from each leaf that still has more than the taker would have."""
        queues = _by_leaf(candidates)
        while (leaf := self._highest(queues)) is not None:
            candidate = queues.pop(leaf)[0]
            mine, theirs = self._sides(leaf)
            if (
                self._share(mine) < self._share(theirs)
                and self._still_borrows(candidate)
                and self._take(candidate.occupant, PreemptionCause.FAIR_SHARE)
                and self._fits_beside_itself()
            ):
                return True
        return False

    def _still_borrows(self, candidate: Candidate) -> bool:
        """A share adds up all GPU models, so it can stay high when the leaf is back at its own quota of the model that is needed."""
        return victims.is_valid(self.tree, candidate, self.request.needed, borrowing=False)

    def _keeps_enough(self, candidate: Candidate) -> bool:
        mine, theirs = self._sides(candidate.occupant.leaf)
        share_of_mine = self._share(mine)
        self.tree.remove(candidate.occupant.leaf, candidate.occupant.usage)
        share_of_theirs = share.of(self.tree, theirs)
        self.tree.add(candidate.occupant.leaf, candidate.occupant.usage)
        return share_of_mine <= share_of_theirs

    def _sides(self, leaf: str) -> tuple[str, str]:
        """The taker's and the loser's sides: the nodes just below the lowest that they have in common."""
        nodes = self.tree.parting(self.request.leaf, leaf)
        if nodes is None:
            raise ValueError(f"{leaf} has nothing in common with {self.request.leaf}, so it is no candidate")
        return nodes

    def _highest(self, queues: dict[str, deque[Candidate]]) -> str | None:
        """Return the leaf to take from next: from the root down, the child with the highest share that has candidates left."""
        open_names = {name for leaf, queue in queues.items() if queue for name in self.tree.path(leaf)}
        own = set(self.tree.path(self.request.leaf))

        def mark(name: str) -> tuple[bool, Rank]:
            """Ties: a cohort before a leaf, because below it the most unjust can be found; then whoever has the better victim."""
            if name in queues:
                return (True, queues[name][0].occupant.rank)
            return (False, min(mark(child)[1] for child in self.tree.children(name) if child in open_names))

        def below(name: str) -> str | None:
            if name in queues:
                return name
            best: tuple[Share, str, str] | None = None
            for child in self.tree.children(name):
                if child not in open_names:
                    continue
                value = self._share(child)
                # Who borrows nothing loses nothing; on the taker's own path an imbalance may lie further down.
                if value == NOTHING and child not in own:
                    continue
                if best is None or best[0] < value or (best[0] == value and mark(child) < mark(best[1])):
                    leaf = below(child)
                    best = (value, child, leaf) if leaf is not None else best
            return best[2] if best else None

        return below(self.tree.path(self.request.leaf)[-1]) if open_names else None

    def _take(self, occupant: Occupant, cause: PreemptionCause) -> bool:
        """Clear an occupant; False when its pool may lose no more."""
        if not self.occupants.may_lose(occupant.pool, 1 + sum(victim.occupant.pool == occupant.pool for victim in self.taken)):
            return False
        self._clear(occupant.leaf, occupant.usage)
        self.fleet.give_back(occupant.members, occupant.running.shape)
        self.taken.append(Victim(occupant, cause))
        return True

    def _restore(self, victim: Victim) -> None:
        self._charge(victim.occupant.leaf, victim.occupant.usage)
        self.fleet.take(victim.occupant.members, victim.occupant.running.shape)

    def _restore_all(self) -> None:
        for victim in self.taken:
            self._restore(victim)
        self.taken = []

    def _fits(self, *, borrowing: bool) -> Sequence[Member] | None:
        if not borrowing and self.tree.borrows_with(self.request.leaf, self.request.usage):
            return None
        if gate.over_quota(self.tree, self.request.leaf, self.request.option) is not None:
            return None
        return self.place(self.request)

    def _fits_beside_itself(self) -> bool:
        self.tree.remove(self.request.leaf, self.request.usage)
        members = self._fits(borrowing=True)
        self.tree.add(self.request.leaf, self.request.usage)
        return members is not None

    def _smallest(self, *, borrowing: bool) -> Found:
        """Give victims back in reverse while the job still fits. The last one stays: without it the job did not fit."""
        for victim in self.taken[-2::-1]:
            self._restore(victim)
            if self._fits(borrowing=borrowing) is not None:
                self.taken.remove(victim)
            else:
                self._clear(victim.occupant.leaf, victim.occupant.usage)
                self.fleet.give_back(victim.occupant.members, victim.occupant.running.shape)
        members = self._fits(borrowing=borrowing)
        if members is None:
            raise ValueError(f"{self.request.job.job}: fitted with more victims and fewer, but not with those that are left")
        return Found(members, tuple(self.taken))


def _by_leaf(candidates: Sequence[Candidate]) -> dict[str, deque[Candidate]]:
    queues: dict[str, deque[Candidate]] = {}
    for candidate in candidates:
        queues.setdefault(candidate.occupant.leaf, deque()).append(candidate)
    return queues
