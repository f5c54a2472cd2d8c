"""The process tree of a lease: its members, the CPU time that they used, and whether all of them are gone.

Owns: reading the machine's process table (psutil) and the arithmetic over it. Does not own: starting or killing anything
(sandbox/) or what the numbers are used for (telemetry.py). A member is known by process id and start time, so a
recycled id is never mistaken for it, and it stays a member after its parent died.

CPU time of a tree = over its live members, own time + time of the children that each has reaped. A child's time is
thus counted once: in itself while it lives, in its parent afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

# Members remembered per tree; a fork bomb beyond this is still counted through whichever members are remembered.
MEMBERS_MAX = 16_384


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process at one moment. `started_at_ticks` tells apart two processes that were given the same id."""

    process_id: int
    parent_id: int
    started_at_ticks: int
    cpu_time_ms: int
    memory_bytes: int
    is_zombie: bool = False


ProcessTable = Mapping[int, ProcessRow]
ReadTable = Callable[[], ProcessTable]


@dataclass(frozen=True, slots=True)
class TreeReading:
    """What a tree uses: cumulative CPU time, resident memory now, live processes (zombies are not alive)."""

    cpu_time_ms: int
    memory_bytes: int
    process_ids: tuple[int, ...]


def read_table() -> ProcessTable:
    """Return every process that can be seen now. Processes that end while being read are left out."""
    rows = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                times = process.cpu_times()
                rows[process.pid] = ProcessRow(
                    process_id=process.pid,
                    parent_id=process.ppid(),
                    started_at_ticks=_ticks(process.create_time()),
                    cpu_time_ms=round((times.user + times.system + times.children_user + times.children_system) * 1000),
                    memory_bytes=process.memory_info().rss,
                    is_zombie=process.status() == psutil.STATUS_ZOMBIE,
                )
        except psutil.Error:
            continue
    return rows


class ProcessTree:
    """A root process and everything that it started, as far as readings of the table could see. Give it tables in time order."""

    def __init__(self, root: ProcessRow) -> None:
        self._members = {root.process_id: root.started_at_ticks}
        self._cpu_time_ms = 0

    def update(self, table: ProcessTable) -> TreeReading:
        """Follow the tree into `table` and return its reading. The CPU time never decreases.

        When a member ends without being waited for, its time is in no row any more; the last total stands until the
        others have overtaken it, so the total is a lower bound.
        """
        present = {pid: table[pid] for pid, ticks in self._members.items() if pid in table and table[pid].started_at_ticks == ticks}
        children: dict[int, list[ProcessRow]] = {}
        for row in table.values():
            children.setdefault(row.parent_id, []).append(row)
        frontier = list(present)
        while frontier and len(present) < MEMBERS_MAX:
            for child in children.get(frontier.pop(), ()):
                if child.process_id not in present:
                    present[child.process_id] = child
                    frontier.append(child.process_id)
        self._members = {pid: row.started_at_ticks for pid, row in present.items()}
        alive = [row for row in present.values() if not row.is_zombie]
        self._cpu_time_ms = max(self._cpu_time_ms, sum(row.cpu_time_ms for row in present.values()))
        return TreeReading(
            cpu_time_ms=self._cpu_time_ms,
            memory_bytes=sum(row.memory_bytes for row in alive),
            process_ids=tuple(sorted(row.process_id for row in alive)),
        )


def _ticks(created_at_seconds: float) -> int:
    # psutil derives the start from the kernel's clock ticks; hundredths are exactly those ticks again.
    return round(created_at_seconds * 100)
