"""Ground: what is free now, and what will be free when everybody who was told to stop has left.

Owns the two states of one decision and what keeps them apart: leaving jobs, which still hold devices and quota, and nominations,
which are held for those who wait for them. Does not own rules. Where nobody leaves, both states are the same object.

*now* holds: running jobs, the starts of this plan, and what is nominated as far as it is free. A start is placed here.
*later* holds: running jobs without the leaving, the starts of this plan, and everything nominated. Victims are looked for here.
A start must fit both, so that it never takes what a nominated job waits for. Example: 8 of 8 GPUs are busy, a job of 4 is told
to leave for one of 3. Now nothing is free; later 1 is, and the next job of 1 may be nominated for it without a victim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain.jobs import Shape
from quotas.amount import Amount
from quotas.tree import Tree
from scheduler.decision.fit import Fleet, Member
from scheduler.decision.occupants import Occupant
from scheduler.decision.snapshot import Snapshot, model_of, usage_of


@dataclass(slots=True)
class State:
    """Quota and devices at one moment."""

    tree: Tree
    fleet: Fleet


class Ground:
    """The states of one decision. It begins with copies of what the snapshot holds."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.later = State(snapshot.tree.copy(), snapshot.fleet.copy())
        self.now = self.later
        leaving = [job for job in snapshot.running if job.is_leaving]
        if leaving:
            self._part()
            for job in leaving:
                if job.tenant in self.later.tree:
                    self.later.tree.remove(job.tenant, usage_of(job.shape, model_of(job.flavor, snapshot.flavors)))
                self.later.fleet.release(job.shape, job.slices, job.nodes)

    @property
    def is_parted(self) -> bool:
        """True when somebody is leaving or nominated, so that now and later differ."""
        return self.later is not self.now

    def _part(self) -> None:
        if not self.is_parted:
            self.now = State(self.later.tree.copy(), self.later.fleet.copy())

    def start(self, leaf: str, usage: Mapping[str, Amount], members: Sequence[Member], shape: Shape) -> None:
        """Charge a start to both states."""
        for state in (self.now, self.later) if self.is_parted else (self.now,):
            state.tree.add(leaf, usage)
            state.fleet.take(members, shape)

    def nominate(self, leaf: str, usage: Mapping[str, Amount], members: Sequence[Member], shape: Shape) -> None:
        """Hold places for a job that starts later. Its quota is charged later too: now its victims still hold it."""
        self._part()
        self.later.tree.add(leaf, usage)
        self.later.fleet.take(members, shape)
        self.now.fleet.take(members, shape)

    def keep_for_now(self, cleared: Iterable[Occupant]) -> None:
        """Say that a search cleared victims from `later`: until they have left, they hold what they hold."""
        if self.is_parted:
            return
        self._part()
        for occupant in cleared:
            self.now.tree.add(occupant.leaf, occupant.usage)
            self.now.fleet.take(occupant.members, occupant.running.shape)

    def is_free_now(self, members: Iterable[Member], shape: Shape) -> bool:
        """Tell whether all of `members` can be taken now: nobody holds their devices, CPU or memory, and their nodes are schedulable."""
        fleet = self.now.fleet
        cpu: dict[int, int] = {}
        memory: dict[int, int] = {}
        for member in members:
            if member.devices & ~fleet.free_devices[member.node] or not fleet.layout.schedulable >> member.node & 1:
                return False
            cpu[member.node] = cpu.get(member.node, 0) + shape.cpu_milli_per_replica
            memory[member.node] = memory.get(member.node, 0) + shape.memory_bytes_per_replica
        has_cpu = all(wanted <= fleet.free_cpu_milli[node] for node, wanted in cpu.items() if wanted)
        return has_cpu and all(wanted <= fleet.free_memory_bytes[node] for node, wanted in memory.items() if wanted)
