"""Reading the event table, in an order in which nothing can appear later.

Events are written by many commands in the transaction of what they tell. On SQLite one transaction writes at a time, so identifiers are in
order of commit. On PostgreSQL a transaction with a lower identifier may commit later, and a reader that has gone past it would never see
its event. So a reader goes as far as is settled: to the newest event that was inserted before the oldest transaction began that may still
write. A later identifier is drawn later, so nothing below can appear any more. Both times are the database's own, in microseconds.

The rule asks PostgreSQL which transactions are open; it shows those of the own role, so all processes of the service use one. What is held
back comes with the end of the transaction that held it, which wakes the readers; only that of a killed process does not: look again after
`SETTLE_MS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Connection, func, select, text

from store.tables import Event, Node, Tenant

SETTLE_MS = 2_000

_event = Event.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]

# A transaction has its identifier before it draws any other (store/postgres.py); the clock is read before the sessions are.
_oldest_writer_us = text(
    "SELECT (extract(epoch FROM least(statement_timestamp(), min(xact_start))) * 1000000)::bigint FROM pg_stat_activity"
    " WHERE backend_xid IS NOT NULL AND backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"
)


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
    """Settled events with an identifier above `after`, oldest first; `tenant_id` and `job_id` narrow."""

    is_consistent: ClassVar[bool] = False  # the open transactions are asked for first, the rows are read after

    after: int
    limit: int
    tenant_id: str | None = None
    job_id: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[EventView, ...]:
        """Return at most `limit` events."""
        columns = (
            _event.c.id, _event.c.at_ms, _event.c.kind, _tenant.c.name.label("tenant"), _event.c.job_id, _event.c.lease_id, _node.c.name,
            _event.c.data,
        )  # fmt: skip
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
            statement = statement.where(_event.c.id <= settled(connection))
        return tuple(EventView(*row[:-1], json.loads(row[-1])) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class NewestEvent:
    """Where a stream begins that asks for new events only: the newest settled event. Of a job: its newest, where its stream ends."""

    is_consistent: ClassVar[bool] = False

    job_id: str | None = None

    def fetch(self, connection: Connection, /) -> int:
        """Return the identifier, 0 when there are no events."""
        if self.job_id is None:
            return settled(connection)
        newest = select(func.coalesce(func.max(_event.c.id), 0)).where(_event.c.job_id == self.job_id)
        return int(connection.execute(newest).scalar_one())


def settled(connection: Connection) -> int:
    """Return the identifier up to which no event can appear any more."""
    newest = select(_event.c.id).order_by(_event.c.id.desc()).limit(1)
    if connection.dialect.name != "sqlite":
        oldest_us = connection.execute(_oldest_writer_us).scalar_one()
        newest = newest.where(_event.c.inserted_at_us < oldest_us)
    return connection.execute(newest).scalar_one_or_none() or 0
