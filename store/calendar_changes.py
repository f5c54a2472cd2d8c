"""Capacity reservations and maintenance windows: made, listed, cancelled.

Owns the rows of `capacity_reservation` and `maintenance_window` but for the account of a reservation's use, which billing keeps. What
is set aside at one time may not exceed what the fleet has of the model: the sum is taken at every start within the new windows, the only
moments at which it can grow. What windows mean for jobs is scheduler/decision; store/calendar.py reads the rows for it. Cancelled and past
rows keep their names: bills and events tell of them.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, or_, select, text, update

from store import duplicates, operator_events, quota_usage
from store.errors import ConflictError, InvalidError, NotFoundError
from store.identity import find_tenant
from store.recurrence import Recurrence, occurrences
from store.tables import CapacityReservation, Flavor, MaintenanceWindow, Node, Tenant

OCCURRENCES_MAXIMUM = 400  # of one row: every day for a year, or every week for seven
AHEAD_DAYS_MAXIMUM = 36_525  # a hundred years; calendars end somewhere
DAY_MS = 86_400_000
NAMED_MAXIMUM = 5  # reservations that a refusal names

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_reservation = CapacityReservation.__table__  # type: ignore[attr-defined]
_maintenance = MaintenanceWindow.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_flavor = Flavor.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]
_reservations = select(_reservation, _tenant.c.name.label("tenant")).join(_tenant, _tenant.c.id == _reservation.c.tenant_id)


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time that may recur."""

    start_ms: int
    end_ms: int
    recurrence: Recurrence | None

    def check(self, now_ms: int) -> None:
        """Raise InvalidError for a window that is empty or over, or whose repetitions overlap or are too many."""
        if self.end_ms <= self.start_ms:
            raise InvalidError("empty_window", "end: must lie after start", field="end", limit_ms=self.start_ms)
        if self.end_ms <= now_ms:
            raise InvalidError("window_is_over", "end: this window is over already", field="end", limit_ms=now_ms)
        repeated = self.recurrence
        last_ms = now_ms + AHEAD_DAYS_MAXIMUM * DAY_MS
        for field, at_ms in (("end", self.end_ms), ("repeat.until", 0 if repeated is None else repeated.until_ms)):
            if at_ms > last_ms:
                message = f"{field}: lies more than {AHEAD_DAYS_MAXIMUM} days ahead"
                raise InvalidError("window_too_far_ahead", message, field=field, limit_ms=last_ms)
        if repeated is None:
            return
        every_ms = repeated.every_days * DAY_MS
        if self.end_ms - self.start_ms > every_ms - DAY_MS // 24:  # an hour less: a change of the clocks may bring two windows nearer
            message = "repeat.every_days: the windows would meet; they need an hour between them, for when clocks change"
            raise InvalidError("window_repeats_too_soon", message, field="repeat.every_days")
        if repeated.until_ms <= self.start_ms:
            message = "repeat.until: must lie after start"
            raise InvalidError("empty_window", message, field="repeat.until", limit_ms=self.start_ms)
        if (repeated.until_ms - self.start_ms) // every_ms >= OCCURRENCES_MAXIMUM:
            message = f"repeat.until: makes more than {OCCURRENCES_MAXIMUM} windows"
            raise InvalidError("window_repeats_too_often", message, field="repeat.until", limit=OCCURRENCES_MAXIMUM)

    def values(self) -> dict[str, Any]:
        """Return the columns of a row."""
        text_of = None if self.recurrence is None else self.recurrence.text()
        return {"start_ms": self.start_ms, "end_ms": self.end_ms, "recurrence": text_of}


@dataclass(frozen=True, slots=True)
class ReservationView:
    """A capacity reservation, with what its tenant did not use of it as far as billing has counted."""

    id: str
    name: str
    tenant: str
    flavor: str
    milli_gpu: int
    window: Window
    created_at_ms: int
    cancelled_at_ms: int | None
    set_aside_milli_gpu_ms: int
    unused_milli_gpu_ms: int
    counted_until_ms: int | None


@dataclass(frozen=True, slots=True)
class MaintenanceView:
    """A maintenance window of nodes."""

    id: str
    name: str
    nodes: tuple[str, ...]
    window: Window
    created_at_ms: int
    cancelled_at_ms: int | None


@dataclass(frozen=True, slots=True)
class CreateReservation:
    """Set devices aside for a tenant in a window."""

    id: str
    name: str
    tenant: str
    flavor: str
    gpus: int
    window: Window
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> ReservationView:
        """Return it; NotFoundError for the tenant, InvalidError for flavor and window, ConflictError over the fleet or for a taken name."""
        tenant = find_tenant(connection, self.tenant)
        flavor = connection.execute(select(_flavor).where(_flavor.c.name == self.flavor)).first()
        if flavor is None:
            known = list(connection.execute(select(_flavor.c.name).order_by(_flavor.c.name)).scalars())
            raise InvalidError("unknown_flavor", f"flavor: {self.flavor!r} is not one of {', '.join(known)}", field="flavor", limit=known)
        self.window.check(self.now_ms)
        if connection.dialect.name != "sqlite":  # two that fit apart may not fit together
            connection.execute(text("LOCK TABLE capacity_reservation IN SHARE ROW EXCLUSIVE MODE"))
        milli_gpu = self.gpus * flavor.milli_gpu
        _check_capacity(connection, self.name, flavor.gpu_model, milli_gpu, self.window, self.now_ms)
        values = {"id": self.id, "name": self.name, "tenant_id": tenant.id, "flavor": self.flavor, "milli_gpu": milli_gpu}
        counters = {"set_aside_milli_gpu_ms": 0, "unused_milli_gpu_ms": 0}
        with duplicates.refused_as("reservation_exists", f"there is a reservation {self.name!r} already", field="name"):
            connection.execute(insert(_reservation), values | self.window.values() | counters | {"created_at_ms": self.now_ms})
        data = {"reservation": self.name, "created": True, "flavor": self.flavor, "milli_gpu": milli_gpu, **self.window.values()}
        _record_reservation(connection, tenant.id, data, self.now_ms, self.user_id)
        return ReservationByName(self.name).fetch(connection)


@dataclass(frozen=True, slots=True)
class CancelReservation:
    """End a reservation for ever; again changes nothing."""

    name: str
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> ReservationView:
        """Return it as it is now; NotFoundError."""
        row = _reservation_row(connection, self.name, None)
        is_open = _reservation.c.cancelled_at_ms.is_(None)
        changed = connection.execute(update(_reservation).where(_reservation.c.id == row.id, is_open).values(cancelled_at_ms=self.now_ms))
        if changed.rowcount:
            _record_reservation(connection, row.tenant_id, {"reservation": self.name, "cancelled": True}, self.now_ms, self.user_id)
        return ReservationByName(self.name).fetch(connection)


@dataclass(frozen=True, slots=True)
class ReservationByName:
    """One reservation; `tenant_id` narrows to that tenant's."""

    name: str
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> ReservationView:
        """Return it; NotFoundError."""
        return _reservation_view(_reservation_row(connection, self.name, self.tenant_id))


@dataclass(frozen=True, slots=True)
class Reservations:
    """Reservations in order of name; `tenant_id` narrows. Those that are over or cancelled too with `is_past_shown`."""

    now_ms: int
    tenant_id: str | None = None
    is_past_shown: bool = False

    def fetch(self, connection: Connection, /) -> tuple[ReservationView, ...]:
        """Return them."""
        statement = _reservations.order_by(_reservation.c.name)
        if self.tenant_id is not None:
            statement = statement.where(_reservation.c.tenant_id == self.tenant_id)
        found = [_reservation_view(row) for row in connection.execute(statement)]
        return tuple(view for view in found if self.is_past_shown or _is_ahead(view, self.now_ms))


@dataclass(frozen=True, slots=True)
class CreateMaintenance:
    """Keep nodes free of work in a window."""

    id: str
    name: str
    nodes: Sequence[str]
    window: Window
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> MaintenanceView:
        """Return it; InvalidError for a node or the window, ConflictError for a taken name."""
        known = {row.name: row.id for row in connection.execute(select(_node.c.id, _node.c.name))}
        for position, name in enumerate(self.nodes):
            if name not in known:
                raise InvalidError("unknown_node", f"nodes[{position}]: there is no node {name!r}", field=f"nodes[{position}]")
        self.window.check(self.now_ms)
        node_ids = json.dumps(sorted({known[name] for name in self.nodes}))
        values = {"id": self.id, "name": self.name, "node_ids": node_ids, "created_at_ms": self.now_ms}
        with duplicates.refused_as("maintenance_exists", f"there is a maintenance window {self.name!r} already", field="name"):
            connection.execute(insert(_maintenance), values | self.window.values())
        data = {"maintenance": self.name, "created": True, "nodes": sorted(set(self.nodes)), **self.window.values()}
        operator_events.record(connection, operator_events.MAINTENANCE_CHANGED, data, now_ms=self.now_ms, user_id=self.user_id)
        return MaintenanceByName(self.name).fetch(connection)


@dataclass(frozen=True, slots=True)
class CancelMaintenance:
    """End a maintenance window for ever; again changes nothing."""

    name: str
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> MaintenanceView:
        """Return it as it is now; NotFoundError."""
        view = MaintenanceByName(self.name).fetch(connection)
        is_open = _maintenance.c.cancelled_at_ms.is_(None)
        changed = connection.execute(update(_maintenance).where(_maintenance.c.id == view.id, is_open).values(cancelled_at_ms=self.now_ms))
        if changed.rowcount:
            data = {"maintenance": self.name, "cancelled": True}
            operator_events.record(connection, operator_events.MAINTENANCE_CHANGED, data, now_ms=self.now_ms, user_id=self.user_id)
        return MaintenanceByName(self.name).fetch(connection)


@dataclass(frozen=True, slots=True)
class MaintenanceByName:
    """One maintenance window."""

    name: str

    def fetch(self, connection: Connection, /) -> MaintenanceView:
        """Return it; NotFoundError."""
        row = connection.execute(select(_maintenance).where(_maintenance.c.name == self.name)).first()
        if row is None:
            raise NotFoundError("maintenance_not_found", f"there is no maintenance window {self.name!r}", field="maintenance")
        return _maintenance_view(row, _node_names(connection))


@dataclass(frozen=True, slots=True)
class MaintenanceWindows:
    """Maintenance windows in order of name, those that are over or cancelled too with `is_past_shown`."""

    now_ms: int
    is_past_shown: bool = False

    def fetch(self, connection: Connection, /) -> tuple[MaintenanceView, ...]:
        """Return them."""
        names = _node_names(connection)
        found = [_maintenance_view(row, names) for row in connection.execute(select(_maintenance).order_by(_maintenance.c.name))]
        return tuple(view for view in found if self.is_past_shown or _is_ahead(view, self.now_ms))


def _check_capacity(connection: Connection, name: str, model: str, milli_gpu: int, window: Window, now_ms: int) -> None:
    capacity = quota_usage.capacity(connection, model)
    new = [span for span in occurrences(window.start_ms, window.end_ms, window.recurrence) if span[1] > now_ms]
    first_ms, last_ms = new[0][0], new[-1][1]
    same = (_flavor.c.gpu_model == model, _reservation.c.cancelled_at_ms.is_(None), _reservation.c.start_ms < last_ms)
    once_over = or_(_reservation.c.recurrence.is_not(None), _reservation.c.end_ms > first_ms)
    joined = select(_reservation).join(_flavor, _flavor.c.name == _reservation.c.flavor).where(*same, once_over)
    spans = [
        (start_ms, end_ms, row.milli_gpu, row.name)
        for row in connection.execute(joined)
        for start_ms, end_ms in occurrences(row.start_ms, row.end_ms, Recurrence.of(row.recurrence))
        if start_ms < last_ms and end_ms > first_ms
    ]
    spans += [(start_ms, end_ms, milli_gpu, name) for start_ms, end_ms in new]
    on: list[tuple[int, int, str]] = []  # (end, how much, whose), the next to end first
    for start_ms, end_ms, asked, owner in sorted(spans):
        while on and on[0][0] <= start_ms:
            heapq.heappop(on)
        heapq.heappush(on, (end_ms, asked, owner))
        total = sum(item[1] for item in on)
        owners = {item[2] for item in on}
        if total > capacity and name in owners:
            raise _over_capacity(name, model, total, capacity, start_ms, sorted(owners - {name}))


def _over_capacity(name: str, model: str, asked: int, capacity: int, moment_ms: int, others: Sequence[str]) -> ConflictError:
    shown = ", ".join(others[:NAMED_MAXIMUM]) + (", …" if len(others) > NAMED_MAXIMUM else "")
    beside = f" together with {shown}" if others else ""
    when = (_EPOCH + timedelta(milliseconds=moment_ms)).isoformat(timespec="seconds")
    message = f"gpus: from {when} on, {name} would set aside {asked / 1_000:g} of {model}{beside}; the fleet has {capacity / 1_000:g}"
    data = {"asked_milli_gpu": asked, "capacity_milli_gpu": capacity, "at_ms": moment_ms, "beside": list(others)}
    return ConflictError("over_capacity", message, field="gpus", limit=capacity // 1_000, **data)


def _reservation_row(connection: Connection, name: str, tenant_id: str | None) -> Any:
    statement = _reservations.where(_reservation.c.name == name)
    if tenant_id is not None:
        statement = statement.where(_reservation.c.tenant_id == tenant_id)
    row = connection.execute(statement).first()
    if row is None:
        raise NotFoundError("reservation_not_found", f"there is no reservation {name!r}", field="reservation")
    return row


def _reservation_view(row: Any) -> ReservationView:
    window = Window(row.start_ms, row.end_ms, Recurrence.of(row.recurrence))
    return ReservationView(
        row.id, row.name, row.tenant, row.flavor, row.milli_gpu, window, row.created_at_ms, row.cancelled_at_ms, row.set_aside_milli_gpu_ms,
        row.unused_milli_gpu_ms, row.counted_until_ms,
    )  # fmt: skip


def _maintenance_view(row: Any, names: Mapping[str, str]) -> MaintenanceView:
    nodes = tuple(sorted(names[node_id] for node_id in json.loads(row.node_ids) if node_id in names))
    window = Window(row.start_ms, row.end_ms, Recurrence.of(row.recurrence))
    return MaintenanceView(row.id, row.name, nodes, window, row.created_at_ms, row.cancelled_at_ms)


def _node_names(connection: Connection) -> dict[str, str]:
    return {row.id: row.name for row in connection.execute(select(_node.c.id, _node.c.name))}


def _is_ahead(view: ReservationView | MaintenanceView, now_ms: int) -> bool:
    """Tell whether some occurrence is not over."""
    if view.cancelled_at_ms is not None:
        return False
    return any(end_ms > now_ms for _, end_ms in occurrences(view.window.start_ms, view.window.end_ms, view.window.recurrence))


def _record_reservation(connection: Connection, tenant_id: str, data: Mapping[str, Any], now_ms: int, user_id: str | None) -> None:
    kind = operator_events.RESERVATION_CHANGED
    operator_events.record(connection, kind, data, now_ms=now_ms, user_id=user_id, tenant_id=tenant_id)
