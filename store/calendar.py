"""The calendar and the policy as the scheduler reads them: capacity reservations, maintenance windows, the operator's choices.

Owns which rows are in force at a moment and how far ahead recurring windows are unrolled. Rows are written by store/calendar_changes.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, select

from scheduler.decision.snapshot import DAY_MS, CapacityReservation, MaintenanceWindow, Placement, Policy, Victims
from store import tables
from store.recurrence import Recurrence, occurrences

HORIZON_MS = 31 * DAY_MS  # a job that would end later than this sees only the windows that begin before
UNROLLED_AGAIN_MS = DAY_MS  # so much earlier than it must does a window come into sight
POLICY_NAME = "fleet"

_reservation = tables.CapacityReservation.__table__  # type: ignore[attr-defined]
_maintenance = tables.MaintenanceWindow.__table__  # type: ignore[attr-defined]
_policy = tables.SchedulingPolicy.__table__  # type: ignore[attr-defined]
_node = tables.Node.__table__  # type: ignore[attr-defined]

_ENUMS = {"victims": Victims, "placement": Placement}
CHOICES = tuple(field.name for field in fields(Policy) if field.name != "spans_nodes")  # what an operator may set


@dataclass(frozen=True, slots=True)
class Calendar:
    """What is on or ahead at a moment, in order of name and time."""

    reservations: tuple[CapacityReservation, ...] = ()
    maintenance: tuple[MaintenanceWindow, ...] = ()


def read(connection: Connection, now_ms: int) -> Calendar:
    """Return the windows that are on at `now_ms` or begin within the horizon."""
    names = {row.id: row.name for row in connection.execute(select(_node.c.id, _node.c.name))}
    reservations = tuple(
        CapacityReservation(row.name, row.tenant_id, row.flavor, row.milli_gpu, start_ms, end_ms)
        for row in connection.execute(select(_reservation).where(_reservation.c.cancelled_at_ms.is_(None)).order_by(_reservation.c.name))
        for start_ms, end_ms in ahead(row, now_ms)
    )
    maintenance = tuple(
        MaintenanceWindow(row.name, tuple(sorted(names[node] for node in json.loads(row.node_ids) if node in names)), start_ms, end_ms)
        for row in connection.execute(select(_maintenance).where(_maintenance.c.cancelled_at_ms.is_(None)).order_by(_maintenance.c.name))
        for start_ms, end_ms in ahead(row, now_ms)
    )
    return Calendar(reservations, maintenance)


def has_rows(connection: Connection) -> bool:
    """Tell whether anything stands in the calendar, however far ahead."""
    tables_of_it = (_reservation, _maintenance)
    return any(connection.execute(select(table.c.id).where(table.c.cancelled_at_ms.is_(None)).limit(1)).first() for table in tables_of_it)


def ahead(row: Any, now_ms: int) -> Iterator[tuple[int, int]]:
    """Yield the occurrences of a row's window that are not over and begin within the horizon."""
    for start_ms, end_ms in occurrences(row.start_ms, row.end_ms, Recurrence.of(row.recurrence)):
        if start_ms > now_ms + HORIZON_MS:
            return
        if end_ms > now_ms:
            yield start_ms, end_ms


def read_policy(connection: Connection, base: Policy) -> Policy:
    """Return `base` with the operator's choices."""
    text = connection.execute(select(_policy.c.choices).where(_policy.c.name == POLICY_NAME)).scalar()
    return base if text is None else with_choices(base, json.loads(text))


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy that decisions follow now. `base` is the installation's."""

    base: Policy

    def fetch(self, connection: Connection, /) -> Policy:
        """Return it."""
        return read_policy(connection, self.base)


def with_choices(base: Policy, choices: dict[str, Any]) -> Policy:
    """Return `base` with `choices`, as a row holds them."""
    known: dict[str, Any] = {name: value for name, value in choices.items() if name in CHOICES}
    known |= {name: kind(known[name]) for name, kind in _ENUMS.items() if name in known}
    return replace(base, **known)
