"""Reading the event table, in an order in which nothing can appear later.

Events are written by many commands in the transaction of what they tell. On SQLite one writer exists, so identifiers are in order of
commit. On PostgreSQL a transaction with a lower identifier may commit later: events above a gap are held back until they are `SETTLE_MS`
old, by which time the gap is either filled or belongs to a transaction that was rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from store.tables import Event, Node, Tenant

SETTLE_MS = 2_000
HORIZON_ROWS_MAXIMUM = 5_000

_event = Event.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class EventView:
    """A fact, with the names of its tenant and node."""

    id: int
    at_ms: int
    kind: str
    tenant: str | None
    job_id: str | None
    lease_id: str | None
    node: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventsAfter:
    """Events with an identifier above `after`, oldest first; `tenant_id` and `job_id` narrow."""

    after: int
    limit: int
    now_ms: int
    tenant_id: str | None = None
    job_id: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[EventView, ...]:
        """Return at most `limit` events."""
        columns = (
            _event.c.id,
            _event.c.at_ms,
            _event.c.kind,
            _event.c.tenant_id,
            _event.c.job_id,
            _event.c.lease_id,
            _node.c.name,
            _event.c.data,
        )
        statement = (
            select(*columns)
            .select_from(_event.outerjoin(_node, _node.c.id == _event.c.node_id).outerjoin(_tenant, _tenant.c.id == _event.c.tenant_id))
            .where(_event.c.id > self.after)
            .order_by(_event.c.id)
            .limit(self.limit)
        )
        if self.tenant_id is not None:
            statement = statement.where(_event.c.tenant_id == self.tenant_id)
        if self.job_id is not None:
            statement = statement.where(_event.c.job_id == self.job_id)
        if connection.dialect.name != "sqlite":
            statement = statement.where(_event.c.id <= self._horizon(connection))
        return tuple(EventView(*row[:-1], json.loads(row[-1])) for row in connection.execute(statement))

    def _horizon(self, connection: Connection) -> int:
        young = select(_event.c.id).where(_event.c.id > self.after, _event.c.at_ms > self.now_ms - SETTLE_MS).order_by(_event.c.id)
        ids = list(connection.execute(young.limit(HORIZON_ROWS_MAXIMUM)).scalars())
        if not ids:
            return int(connection.execute(select(func.coalesce(func.max(_event.c.id), 0))).scalar_one())
        before = select(func.coalesce(func.max(_event.c.id), self.after)).where(_event.c.id < ids[0])
        return settled_through(int(connection.execute(before).scalar_one()), ids)


def settled_through(before: int, young_ids: Sequence[int]) -> int:
    """Return the last identifier below the first gap, given the last settled one and the young ones in order."""
    reached = before
    for identifier in young_ids:
        if identifier != reached + 1:
            return reached
        reached = identifier
    return reached


@dataclass(frozen=True, slots=True)
class NewestEvent:
    """The highest identifier there is: where a stream begins that asks for new events only."""

    def fetch(self, connection: Connection, /) -> int:
        """Return the identifier, 0 when there are no events."""
        return int(connection.execute(select(func.coalesce(func.max(_event.c.id), 0))).scalar_one())
