"""Backfill: forward start times for blocked jobs, so that smaller jobs pass them without delaying them.

Owns the walk into the future and the holds that it leaves. Called by decide.py (is this start harmless?) and forecast.py
(when would that start be?). Does not own quota rules or placement; it asks gate.py and place.py about a future state.

The walk: from the present state, let every running job end at its time limit, in order, until the blocked job fits. There it
gets a *hold*: the nodes it would take from that time on. The next blocked job walks through the same future, holds
included. A job may start now if it ends before a hold begins, or takes nothing on the hold's nodes that the hold needs.
Example: 8 of 8 GPUs are busy, 4 until 100 s and 4 until 300 s. A blocked job of 8 holds the node from 300 s; at 100 s a job of
4 with a limit of 200 s may pass it, one with a limit of 201 s would delay it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.jobs import Shape
from quotas.amount import Amount
from quotas.tree import Tree
from scheduler.decision import gate, place, windows
from scheduler.decision.fit import Fleet, Member, bits
from scheduler.decision.gate import Option
from scheduler.decision.snapshot import ClassKey, Policy, RunningJob, Snapshot, model_of, usage_of
from scheduler.decision.windows import Window, Windows

STEPS_MAXIMUM = 10_000  # moments that one walk looks at; a job that does not fit by then gets no forward start time


@dataclass(slots=True)
class Room:
    """What a hold leaves over on one of its nodes at the moment it begins."""

    devices: int
    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A blocked job's forward start time and the nodes it would take then."""

    key: ClassKey
    start_ms: int
    members: tuple[Member, ...]
    spare: Mapping[int, Room]
    option: Option
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that starts in this plan, or begins in the walk, as the walk sees it: what it gives back, and when at the latest."""

    ends_ms: int
    seq: int
    tenant: str
    shape: Shape
    members: Sequence[Member]
    usage: Mapping[str, Amount]


class RunningLease:
    """A running job as the walk sees it. Where it stands is found when it is asked for: most walks end before most leases do."""

    __slots__ = ("_found", "_running", "_snapshot", "ends_ms", "seq")

    def __init__(self, running: RunningJob, snapshot: Snapshot) -> None:
        """Ask only for the time at which it ends."""
        self._running, self._snapshot = running, snapshot
        self._found: tuple[Sequence[Member], Mapping[str, Amount]] | None = None
        self.ends_ms, self.seq = running.ends_ms(snapshot.now_ms), running.seq

    @property
    def tenant(self) -> str:
        """The quota node that it charges."""
        return self._running.tenant

    @property
    def shape(self) -> Shape:
        """What each of its members holds."""
        return self._running.shape

    @property
    def members(self) -> Sequence[Member]:
        """Where it stands."""
        return self._find()[0]

    @property
    def usage(self) -> Mapping[str, Amount]:
        """What it charges."""
        return self._find()[1]

    def _find(self) -> tuple[Sequence[Member], Mapping[str, Amount]]:
        if self._found is None:
            running, snapshot = self._running, self._snapshot
            members = snapshot.fleet.members_of(running.shape, running.slices, running.nodes)
            self._found = (members, usage_of(running.shape, model_of(running.flavor, snapshot.flavors)))
        return self._found


AnyLease = Lease | RunningLease


def leases_of(snapshot: Snapshot) -> dict[str, AnyLease]:
    """Return the running jobs that stay, as a walk into the future sees them."""
    return {job.job: RunningLease(job, snapshot) for job in snapshot.running if not job.is_leaving}


class Holds:
    """The holds of one decision, by node."""

    def __init__(self) -> None:
        self.all: list[Hold] = []
        self._by_node: dict[int, list[Hold]] = {}
        self._avoided: dict[tuple[int, ...], int] = {}  # answers of `nodes_to_avoid`, until a hold changes

    def add(self, hold: Hold) -> None:
        """Remember a hold."""
        self._avoided.clear()
        self.all.append(hold)
        for node in hold.spare:
            self._by_node.setdefault(node, []).append(hold)

    def earliest_delayed(self, members: Sequence[Member], shape: Shape, *, from_ms: int, until_ms: int) -> Hold | None:
        """Return the first hold that a job on `members` during [from_ms, until_ms) would delay, or None."""
        delayed: Hold | None = None
        for node, replicas in _replicas_by_node(members).items():
            for hold in self._by_node.get(node, ()):
                if from_ms < hold.start_ms < until_ms and not _fits_beside(hold.spare[node], shape, replicas):
                    delayed = hold if delayed is None or hold.start_ms < delayed.start_ms else delayed
        return delayed

    def nodes_to_avoid(self, shape: Shape, *, from_ms: int, until_ms: int, replicas: int) -> int:
        """Return the nodes on which `replicas` of `shape` during [from_ms, until_ms) would delay some hold, as a set of bits."""
        asked = (
            from_ms, until_ms, replicas * shape.slices_per_replica, replicas * shape.cpu_milli_per_replica,
            replicas * shape.memory_bytes_per_replica,
        )  # fmt: skip
        mask = self._avoided.get(asked)
        if mask is None:
            mask = 0
            for node, holds in self._by_node.items():
                for hold in holds:
                    if from_ms < hold.start_ms < until_ms and not _fits_beside(hold.spare[node], shape, replicas):
                        mask |= 1 << node
                        break
            self._avoided[asked] = mask
        return mask

    def take_beside(self, members: Sequence[Member], shape: Shape, *, from_ms: int, until_ms: int) -> None:
        """Count a start that passed against what the holds leave over."""
        self._avoided.clear()
        for node, replicas in _replicas_by_node(members).items():
            for hold in self._by_node.get(node, ()):
                if from_ms < hold.start_ms < until_ms:
                    room = hold.spare[node]
                    room.devices -= replicas * shape.slices_per_replica
                    room.cpu_milli -= replicas * shape.cpu_milli_per_replica
                    room.memory_bytes -= replicas * shape.memory_bytes_per_replica


@dataclass(frozen=True, slots=True)
class Placing:
    """What every search for a place respects: the policy, the forward start times of others, and the windows.

    `graces_ms` is by class, where it is not zero: a job holds its place for its time limit and then, at worst, for its grace.
    """

    policy: Policy
    holds: Holds
    windows: Windows
    graces_ms: Mapping[ClassKey, int]

    def lasts_ms(self, key: ClassKey) -> int:
        """Return how long a job of the class may hold its slices."""
        return key.limit_ms + self.graces_ms.get(key, 0) if self.graces_ms else key.limit_ms

    def find(self, fleet: Fleet, key: ClassKey, option: Option, *, from_ms: int, nodes: int = -1) -> list[Member] | Hold | None:
        """Place a gang on `nodes` from `from_ms` for limit and grace. Returns the hold in the way, or None when it does not even fit."""
        until_ms = from_ms + self.lasts_ms(key)
        allowed = fleet.allowed(key.shape, key.where) & nodes
        if self.windows.is_empty:
            return self._beside_holds(fleet, key, option, allowed, from_ms, until_ms)
        with windows.without(fleet, self.windows.closed_to(key.tenant, from_ms, until_ms)) as is_open:
            return self._beside_holds(fleet, key, option, allowed & is_open, from_ms, until_ms)

    def find_inside(self, fleet: Fleet, key: ClassKey, option: Option, window: Window, *, from_ms: int) -> list[Member] | None:
        """Place a gang on the devices that a window sets aside for it."""
        with windows.only(fleet, window) as nodes:
            answer = self.find(fleet, key, option, from_ms=from_ms, nodes=nodes)
        return answer if isinstance(answer, list) else None

    def _beside_holds(
        self, fleet: Fleet, key: ClassKey, option: Option, allowed: int, from_ms: int, until_ms: int
    ) -> list[Member] | Hold | None:
        shape, holds = key.shape, self.holds
        members = place.place(fleet, shape, model=option.model, policy=self.policy, allowed=allowed, where=key.where)
        if members is None or not holds.all:
            return members
        in_the_way = holds.earliest_delayed(members, shape, from_ms=from_ms, until_ms=until_ms)
        if in_the_way is None:
            return members
        # First avoid nodes where one replica is too many; then all nodes where the whole gang would be.
        for replicas in (1, shape.replicas):
            free_of_holds = allowed & ~holds.nodes_to_avoid(shape, from_ms=from_ms, until_ms=until_ms, replicas=replicas)
            members = place.place(fleet, shape, model=option.model, policy=self.policy, allowed=free_of_holds, where=key.where)
            if members is not None and holds.earliest_delayed(members, shape, from_ms=from_ms, until_ms=until_ms) is None:
                return members
        return in_the_way


def placing_of(snapshot: Snapshot) -> Placing:
    """Return what a search for a place respects before anybody holds a forward start time."""
    graces_ms = {item.key: item.grace_ms for item in snapshot.classes if item.grace_ms}
    return Placing(snapshot.policy, Holds(), Windows(snapshot), graces_ms)


class Future:
    """The present state and what ends when. Each `hold` walks through a copy of it."""

    def __init__(self, fleet: Fleet, leases: Sequence[AnyLease], *, now_ms: int, placing: Placing, tree: Tree | None = None) -> None:
        """Start at the present state of `fleet`. With a `tree`, quota must also allow the start; without, only places count."""
        self._fleet = fleet
        self._tree = tree
        self._leases = sorted(leases, key=lambda lease: (lease.ends_ms, lease.seq))
        self._now_ms = now_ms
        self._placing = placing
        self._moments = [moment for moment in placing.windows.moments() if moment > now_ms]

    @property
    def first_release_ms(self) -> int:
        """The first time at which anything comes back; the present when nothing is held."""
        return self._leases[0].ends_ms if self._leases else self._now_ms

    def hold(self, key: ClassKey, options: Sequence[Option], *, jobs: int) -> list[Hold]:
        """Find the earliest starts of the first `jobs` jobs of a class and add their holds. Shorter when the future ends first."""
        holds = self._placing.holds
        tree = self._tree.copy() if self._tree else None
        walk = _Walk(self._fleet.copy(), tree, self._leases, holds.all, self._moments, self._now_ms)
        found: list[Hold] = []
        for _ in range(STEPS_MAXIMUM):
            while len(found) < jobs:
                hold = self._try(walk, key, options)
                if hold is None:
                    break
                walk.occupy(hold)
                holds.add(hold)
                found.append(hold)
            if len(found) >= jobs or not walk.advance():
                break
        return found

    def _try(self, walk: _Walk, key: ClassKey, options: Sequence[Option]) -> Hold | None:
        for option in options:
            if walk.tree is not None and gate.over_quota(walk.tree, key.tenant, option) is not None:
                continue
            if option.model is not None and walk.fleet.free_total.get(option.model, 0) < key.shape.slices:
                continue
            members = self._placing.find(walk.fleet, key, option, from_ms=walk.at_ms)
            if isinstance(members, list):
                ends_ms = walk.at_ms + self._placing.lasts_ms(key)
                self._placing.holds.take_beside(members, key.shape, from_ms=walk.at_ms, until_ms=ends_ms)
                return Hold(key, walk.at_ms, tuple(members), _spare_beside(walk.fleet, members, key.shape), option, ends_ms)
        return None


class _Walk:
    """One copy of the state, moving through the ends of leases and the begins and ends of holds."""

    def __init__(
        self, fleet: Fleet, tree: Tree | None, leases: Sequence[AnyLease], holds: Sequence[Hold], moments: Sequence[int], now_ms: int
    ) -> None:
        self.fleet = fleet
        self.tree = tree
        self.at_ms = now_ms
        self._leases = leases
        self._next_lease = 0
        self._begins = sorted(holds, key=lambda hold: hold.start_ms)
        self._next_begin = 0
        self._moments = moments
        self._next_moment = 0
        self._ends: list[tuple[int, int, Lease]] = []
        self._count = 0
        self._apply()

    def occupy(self, hold: Hold) -> None:
        """Let a hold begin now: take its nodes, and give them back when it ends."""
        members = _free_instead(self.fleet, hold.members)
        self.fleet.take(members, hold.key.shape)
        if self.tree is not None:
            self.tree.add(hold.key.tenant, hold.option.usage)
        self._count += 1
        lease = Lease(hold.ends_ms, self._count, hold.key.tenant, hold.key.shape, members, hold.option.usage)
        heapq.heappush(self._ends, (hold.ends_ms, self._count, lease))

    def advance(self) -> bool:
        """Move to the next moment at which anything changes; False when nothing changes any more."""
        moments = []
        if self._next_lease < len(self._leases):
            moments.append(self._leases[self._next_lease].ends_ms)
        if self._next_begin < len(self._begins):
            moments.append(self._begins[self._next_begin].start_ms)
        if self._ends:
            moments.append(self._ends[0][0])
        if self._next_moment < len(self._moments):
            moments.append(self._moments[self._next_moment])
        if not moments:
            return False
        self.at_ms = max(min(moments), self.at_ms)
        self._apply()
        return True

    def _apply(self) -> None:
        """Ends before begins: what comes back at a moment can be taken at that moment."""
        while self._next_moment < len(self._moments) and self._moments[self._next_moment] <= self.at_ms:
            self._next_moment += 1
        while self._next_lease < len(self._leases) and self._leases[self._next_lease].ends_ms <= self.at_ms:
            self._give_back(self._leases[self._next_lease])
            self._next_lease += 1
        while self._ends and self._ends[0][0] <= self.at_ms:
            self._give_back(heapq.heappop(self._ends)[2])
        while self._next_begin < len(self._begins) and self._begins[self._next_begin].start_ms <= self.at_ms:
            hold = self._begins[self._next_begin]
            self._next_begin += 1
            self.occupy(hold)

    def _give_back(self, lease: AnyLease) -> None:
        self.fleet.give_back(lease.members, lease.shape)
        if self.tree is not None and lease.tenant in self.tree:
            self.tree.remove(lease.tenant, lease.usage)


def _replicas_by_node(members: Sequence[Member]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for member in members:
        counts[member.node] = counts.get(member.node, 0) + 1
    return counts


def _fits_beside(room: Room, shape: Shape, replicas: int) -> bool:
    return (
        room.devices >= replicas * shape.slices_per_replica
        and room.cpu_milli >= replicas * shape.cpu_milli_per_replica
        and room.memory_bytes >= replicas * shape.memory_bytes_per_replica
    )


def _spare_beside(fleet: Fleet, members: Sequence[Member], shape: Shape) -> dict[int, Room]:
    """What is left over on the nodes of `members` once they are taken."""
    spare = {}
    for node, replicas in _replicas_by_node(members).items():
        spare[node] = Room(
            fleet.free_devices[node].bit_count() - replicas * shape.slices_per_replica,
            fleet.free_cpu_milli[node] - replicas * shape.cpu_milli_per_replica,
            fleet.free_memory_bytes[node] - replicas * shape.memory_bytes_per_replica,
        )
    return spare


def _free_instead(fleet: Fleet, members: Sequence[Member]) -> list[Member]:
    """Name free devices for a hold: since it was made, others may have taken its devices and left as many on the same node."""
    chosen: list[Member] = []
    taken: dict[int, int] = {}
    for member in members:
        free = fleet.free_devices[member.node] & ~taken.get(member.node, 0)
        wanted = member.devices.bit_count()
        preferred = list(bits(member.devices & free)) + list(bits(free & ~member.devices))
        devices = sum(1 << index for index in preferred[:wanted])
        taken[member.node] = taken.get(member.node, 0) | devices
        chosen.append(Member(member.node, devices))
    return chosen
