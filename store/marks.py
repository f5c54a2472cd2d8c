"""Marks of what operators and agents change seldom: by them the scheduler sees that quotas or nodes are not what it read before.

Owns which kinds of event tell of such a change. A mark is made of the events' number and the newest of them, so it moves with every commit
that writes one, in whatever order commits come. Every command that changes such rows writes one of these events in its transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from store import tables
from store.tables.records import CHANGES, TELLS_OF_CHANGE

FLEET_KINDS = ("device_changed", "node_changed")
TERMS_KINDS = tuple(kind for kind in CHANGES if kind not in FLEET_KINDS)

_event = tables.Event.__table__  # type: ignore[attr-defined]

# Literals, and the index's own condition word for word: only so do both databases see that the small index answers this.
_MARKS = {
    kinds: select(func.count(), func.max(_event.c.id)).where(
        text(TELLS_OF_CHANGE), text(f"kind IN ({', '.join(repr(kind) for kind in kinds)})")
    )
    for kinds in (TERMS_KINDS, FLEET_KINDS)
}


def of_terms(connection: Connection) -> str:
    """Return the mark of policy, quotas, calendar and tenants."""
    return _mark(connection, TERMS_KINDS)


def of_fleet(connection: Connection) -> str:
    """Return the mark of nodes and devices."""
    return _mark(connection, FLEET_KINDS)


def _mark(connection: Connection, kinds: tuple[str, ...]) -> str:
    count, newest = connection.execute(_MARKS[kinds]).one()
    return f"{count}:{newest or 0}"
