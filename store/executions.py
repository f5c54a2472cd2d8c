"""What executors gave back and what is known of a lease's run: handles and progress, by lease.

Owns the column `lease.handle`. Does not own what follows from an observation (store/leases.py) or what a node has to do
(store/assignments.py). Handles are written by the leading scheduler; progress is read by executors whose work is seen by agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, func, select, update

from store.in_lists import in_lists
from store.leader import Fence
from store.tables import Lease, LeaseNode, Node

_lease = Lease.__table__  # type: ignore[attr-defined]
_part = LeaseNode.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class RecordHandles:
    """Keep what an executor returned for leases that it started: JSON texts by lease."""

    fence: Fence
    handles: Mapping[str, str]
    now_ms: int

    def execute(self, connection: Connection, /) -> None:
        """Write them; a released lease keeps what it had."""
        self.fence.stamp(connection, self.now_ms)
        is_open = and_(_lease.c.id == bindparam("lease"), _lease.c.released_at_ms.is_(None))
        values = [{"lease": lease_id, "new": handle} for lease_id, handle in self.handles.items()]
        if values:
            connection.execute(update(_lease).where(is_open).values(handle=bindparam("new")), values)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a lease's run got, as its rows say. `is_out_of_sight`: a node that may still run it is silent."""

    target: str
    running_at_ms: int | None
    ended_at_ms: int | None
    released_at_ms: int | None
    is_out_of_sight: bool


@dataclass(frozen=True, slots=True)
class ProgressOfLeases:
    """How far the named leases got; a lease without a row is missing in the answer."""

    lease_ids: Sequence[str]

    def fetch(self, connection: Connection, /) -> dict[str, Progress]:
        """Return progress by lease."""
        found: dict[str, Progress] = {}
        for some in in_lists(self.lease_ids):
            named = _lease.c.id.in_(some)
            silent = select(func.count()).select_from(_part.join(_node, _node.c.id == _part.c.node_id))
            silent = silent.where(_part.c.lease_id == _lease.c.id, _part.c.is_gone.is_(False), _node.c.is_lost.is_(True))
            columns = (_lease.c.id, _lease.c.target, _lease.c.running_at_ms, _lease.c.ended_at_ms, _lease.c.released_at_ms)
            for row in connection.execute(select(*columns, silent.scalar_subquery().label("silent")).where(named)):
                found[row.id] = Progress(row.target, row.running_at_ms, row.ended_at_ms, row.released_at_ms, row.silent > 0)
        return found
