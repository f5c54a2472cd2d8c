"""What agents saw and the scheduler has not applied yet, and the marks that say so.

Owns the reading of open observations and the marks of those that concern no lease. Applying is store/leases.py, because a mark and its
consequence belong into one transaction. On PostgreSQL the order of `id` is not the order of commit, so open rows are found by their mark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, insert, select, update

from domain.slices import DeviceHealth
from store.in_lists import in_lists
from store.jobs import canonical
from store.leader import Fence
from store.tables import Device, Event, Node, Observation

BATCH_MAXIMUM = 1_000
DETAIL_LENGTH_MAXIMUM = 200

_observation = Observation.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_event = Event.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation that waits to be applied."""

    id: int
    node_id: str
    kind: str
    lease_id: str | None
    observed_at_ms: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenObservations:
    """Observations that were not applied, oldest first, at most `BATCH_MAXIMUM`."""

    def fetch(self, connection: Connection, /) -> tuple[Seen, ...]:
        """Return them."""
        columns = (
            _observation.c.id, _observation.c.node_id, _observation.c.kind, _observation.c.lease_id, _observation.c.observed_at_ms,
            _observation.c.data,
        )  # fmt: skip
        statement = select(*columns).where(_observation.c.applied_at_ms.is_(None)).order_by(_observation.c.id).limit(BATCH_MAXIMUM)
        return tuple(Seen(*row[:5], json.loads(row[5])) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class SetAside:
    """Mark observations that change no lease as applied, and keep what they say of devices."""

    fence: Fence
    seen: Sequence[Seen]
    now_ms: int

    def execute(self, connection: Connection, /) -> None:
        """Mark them and update device health."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        for item in self.seen:
            device_uuid = item.data.get("device_uuid")
            if item.kind == "device_health" and isinstance(device_uuid, str) and device_uuid.isprintable():
                mine = and_(_device.c.id == device_uuid, _device.c.node_id == item.node_id)
                values = {"health": _health(item.data.get("health")), "health_detail": _detail(item.data.get("detail"))}
                if connection.execute(update(_device).where(mine).values(**values)).rowcount:
                    data = canonical({"device": device_uuid, **values})
                    connection.execute(insert(_event), {"at_ms": now_ms, "kind": "device_changed", "node_id": item.node_id, "data": data})
        ids = [item.id for item in self.seen]
        connection.execute(update(_observation).where(_observation.c.id.in_(ids)).values(applied_at_ms=now_ms))


def _health(told: object) -> str:
    """Return a health that the next snapshot can read: a word that nobody knows means that nothing is known."""
    return told if isinstance(told, str) and told in set(DeviceHealth) else DeviceHealth.UNKNOWN.value


def _detail(told: object) -> str | None:
    """Return what every database can keep of a detail: printable text of a bounded length."""
    return "".join(character for character in told[:DETAIL_LENGTH_MAXIMUM] if character.isprintable()) if isinstance(told, str) else None


@dataclass(frozen=True, slots=True)
class SilentNodes:
    """Mark nodes whose heartbeat is older than `lost_after_ms` as lost. The next inventory or heartbeat of the agent brings them back."""

    fence: Fence
    now_ms: int
    lost_after_ms: int

    def execute(self, connection: Connection, /) -> tuple[str, ...]:
        """Return the identifiers of the nodes that were lost just now."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        edge_ms = self.now_ms - self.lost_after_ms
        silent = and_(_node.c.is_lost.is_(False), _node.c.heartbeat_at_ms.is_not(None), _node.c.heartbeat_at_ms < edge_ms)
        found = tuple(connection.execute(select(_node.c.id).where(silent)).scalars())
        back = tuple(connection.execute(select(_node.c.id).where(_node.c.is_lost.is_(True), _node.c.heartbeat_at_ms >= edge_ms)).scalars())
        for nodes, is_lost in ((found, True), (back, False)):
            for some in in_lists(nodes):
                connection.execute(update(_node).where(_node.c.id.in_(some)).values(is_lost=is_lost))
            data = canonical({"is_lost": is_lost})
            events = [{"at_ms": now_ms, "kind": "node_changed", "node_id": node_id, "data": data} for node_id in nodes]
            if events:
                connection.execute(insert(_event), events)
        return found
