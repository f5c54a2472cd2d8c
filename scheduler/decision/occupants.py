"""Occupants: the running jobs that could be stopped for others, and which of them loses least by it.

Owns who may be a victim at all (preemptible, not leaving already, past its minimum runtime, in a pool that may lose more) and
the order among them. Does not own whether a given job may take from them (victims.py). Built once per decision, and only where
some tenant's policy allows preemption.

The order is Kueue's: lower priority first, then the newest, then the order of arrival. With `least_lost` the job that loses least
GPU-time since its last checkpoint takes the place of the newest. Example: 4 GPUs for 10 minutes lose more than 1 GPU for half an hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quotas.amount import Amount
from scheduler.decision.fit import Member
from scheduler.decision.snapshot import HOUR_MS, Pool, RunningJob, Snapshot, Victims, model_of, usage_of

Rank = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Occupant:
    """A running job with what it would give back. A smaller `rank` is a better victim."""

    running: RunningJob
    usage: Mapping[str, Amount]
    members: Sequence[Member]
    pool: Pool
    rank: Rank

    @property
    def leaf(self) -> str:
        """The quota node that it charges."""
        return self.running.tenant


class Occupants:
    """The possible victims by quota leaf, best first. Changes only by `take`, when a plan names one."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._left = _left_to_lose(snapshot)
        self._by_leaf: dict[str, list[Occupant]] = {}
        self._leaves_of_root: dict[str, list[str]] = {}
        for running in snapshot.running:
            if running.tenant in snapshot.tree and _may_be_stopped(running, snapshot):
                self._by_leaf.setdefault(running.tenant, []).append(_occupant(running, snapshot))
        for leaf, found in self._by_leaf.items():
            found.sort(key=lambda occupant: occupant.rank)
            self._leaves_of_root.setdefault(snapshot.tree.path(leaf)[-1], []).append(leaf)

    def leaves_of(self, root: str) -> Sequence[str]:
        """Return the leaves below `root` that hold possible victims."""
        return self._leaves_of_root.get(root, ())

    def of(self, leaf: str) -> Iterator[Occupant]:
        """Yield the possible victims of one leaf, best first."""
        return (occupant for occupant in self._by_leaf.get(leaf, ()) if self.may_lose(occupant.pool, 1))

    def on(self, devices: Mapping[int, int]) -> list[Occupant]:
        """Return the possible victims that hold any of `devices`, given by node, best first over all leaves."""
        found = [
            occupant
            for leaf in self._by_leaf
            for occupant in self.of(leaf)
            if any(member.devices & devices.get(member.node, 0) for member in occupant.members)
        ]
        return sorted(found, key=lambda occupant: occupant.rank)

    def may_lose(self, pool: Pool, count: int) -> bool:
        """Tell whether `count` more victims of a pool stay within its rate limit."""
        return self._left is None or self._left[pool] >= count

    def take(self, occupant: Occupant) -> None:
        """Count one as a victim of this plan: nobody else can take it."""
        self._by_leaf[occupant.leaf].remove(occupant)
        if self._left is not None:
            self._left[occupant.pool] -= 1


def _may_be_stopped(running: RunningJob, snapshot: Snapshot) -> bool:
    age_ms = snapshot.now_ms - running.started_ms
    return running.is_preemptible and not running.is_leaving and age_ms >= snapshot.policy.min_runtime_ms


def _left_to_lose(snapshot: Snapshot) -> dict[Pool, int] | None:
    """How many victims each pool may still lose, or None when there is no limit."""
    limit = snapshot.policy.preemptions_per_hour
    if limit is None:
        return None
    pools = dict.fromkeys(_pool(running, snapshot) for running in snapshot.running)
    begin_ms = snapshot.now_ms - HOUR_MS
    return {pool: limit - sum(at_ms > begin_ms for at_ms in snapshot.recent_preemptions.get(pool, ())) for pool in pools}


def _pool(running: RunningJob, snapshot: Snapshot) -> Pool:
    position = snapshot.fleet.layout.position.get(running.nodes[0]) if running.nodes else None
    site = snapshot.fleet.layout.nodes[position].site if position is not None else ""
    return (site, model_of(running.flavor, snapshot.flavors) or "")


def _occupant(running: RunningJob, snapshot: Snapshot) -> Occupant:
    usage = usage_of(running.shape, model_of(running.flavor, snapshot.flavors))
    members = snapshot.fleet.members_of(running.shape, running.slices, running.nodes)
    tie = -running.started_ms
    if snapshot.policy.victims is Victims.LEAST_LOST:
        saved_ms = running.checkpoint_ms if running.checkpoint_ms is not None else running.started_ms
        tie = (snapshot.now_ms - saved_ms) * running.shape.milli_gpu
    return Occupant(running, usage, members, _pool(running, snapshot), (running.priority, tie, running.seq))
