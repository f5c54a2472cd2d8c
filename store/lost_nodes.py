"""A node that does not come back: an operator declares it gone, and what it held is free for the scheduler to let go of.

Owns that word and its end. Only a node that is lost already can be declared gone, because a lease on it may run until the machine is off:
whoever says so answers for that. Its devices are quarantined until its agent sends a new inventory, which proves that the machine started
anew. What follows for leases is scheduler/service/transitions.py. Called by api; the inventory is store/fleet.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from domain.slices import DeviceHealth
from store import operator_events
from store.errors import ConflictError
from store.fleet import GONE, NodeByName, NodeView, no_node
from store.tables import Device, Node

_node = Node.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class DeclareGone:
    """Say that a lost node does not come back. Again changes nothing."""

    name: str
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> NodeView:
        """Return the node; NotFoundError, ConflictError while its agent is heard."""
        row = connection.execute(select(_node).where(_node.c.name == self.name).with_for_update()).first()
        if row is None:
            raise no_node(self.name)
        if not row.is_lost:
            message = f"node {self.name!r} is not lost: its agent is heard; drain it, or wait until it is silent"
            raise ConflictError("node_not_lost", message, field="node")
        if row.declared_gone_at_ms is None:
            connection.execute(update(_node).where(_node.c.id == row.id).values(declared_gone_at_ms=self.now_ms))
            unproven = {"health": DeviceHealth.QUARANTINED.value, "health_detail": GONE}
            connection.execute(update(_device).where(_device.c.node_id == row.id).values(**unproven))
            data = {"node": self.name, "declared_gone": True}
            operator_events.record(connection, operator_events.NODE_CHANGED, data, now_ms=self.now_ms, user_id=self.user_id, node_id=row.id)
        return NodeByName(self.name).fetch(connection)
