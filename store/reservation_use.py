"""The account of capacity reservations: windows that are over and not counted yet, and what came of them.

Owns the counting columns of `capacity_reservation`. A window is counted once, when it is over and everything that its tenant held in it is
released: before that a lease may still turn out to have ended earlier. A cancelled reservation counts until it was cancelled. The sums are
billing/calc/reservations.py's; called by billing.service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from billing.calc.reservations import Holding
from store import tables
from store.recurrence import Recurrence, occurrences

WINDOWS_MAXIMUM = 100  # returned at once

_reservation = tables.CapacityReservation.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_flavor = tables.Flavor.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class WindowToCount:
    """A window of a reservation that is over, and what its tenant held of the GPU model around it."""

    reservation_id: str
    milli_gpu: int
    start_ms: int
    end_ms: int
    counted_until_ms: int | None  # of the reservation, before this window
    held: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class WindowsToCount:
    """At most one window of each reservation, its oldest that can be counted at `now_ms`."""

    now_ms: int

    def fetch(self, connection: Connection, /) -> tuple[WindowToCount, ...]:
        """Return them in order of the reservations' names."""
        begun = select(_reservation).where(_reservation.c.start_ms < self.now_ms).order_by(_reservation.c.name)
        found = []
        for row in connection.execute(begun):
            window = self._window(row)
            held = None if window is None else _held(connection, row, *window)
            if window is not None and held is not None:
                found.append(WindowToCount(row.id, row.milli_gpu, *window, row.counted_until_ms, held))
        return tuple(found[:WINDOWS_MAXIMUM])

    def _window(self, row: Any) -> tuple[int, int] | None:
        for start_ms, ends_ms in occurrences(row.start_ms, row.end_ms, Recurrence.of(row.recurrence)):
            end_ms = ends_ms if row.cancelled_at_ms is None else min(ends_ms, row.cancelled_at_ms)
            if end_ms > self.now_ms or start_ms >= end_ms:
                return None
            if row.counted_until_ms is None or end_ms > row.counted_until_ms:
                return start_ms, end_ms
        return None


def _held(connection: Connection, row: Any, start_ms: int, end_ms: int) -> tuple[Holding, ...] | None:
    """Return what the tenant held between the two; None while something of it is not released."""
    model = select(_flavor.c.gpu_model).where(_flavor.c.name == row.flavor).scalar_subquery()
    mine = and_(_lease.c.tenant_id == row.tenant_id, _flavor.c.gpu_model == model, _lease.c.granted_at_ms < end_ms)
    around = and_(mine, or_(_lease.c.released_at_ms.is_(None), _lease.c.released_at_ms > start_ms))
    columns = (_lease.c.milli_gpu, _lease.c.granted_at_ms, _lease.c.released_at_ms)
    joined = _lease.join(_flavor, _flavor.c.name == _lease.c.flavor)
    rows: Sequence[Any] = connection.execute(select(*columns).select_from(joined).where(around)).all()
    if any(lease.released_at_ms is None for lease in rows):
        return None
    return tuple(Holding(*lease) for lease in rows)


@dataclass(frozen=True, slots=True)
class CountWindow:
    """Add a counted window to its reservation, unless somebody has counted it meanwhile."""

    window: WindowToCount
    unused_milli_gpu_ms: int

    def execute(self, connection: Connection, /) -> bool:
        """Return whether it was added."""
        window = self.window
        set_aside = window.milli_gpu * (window.end_ms - window.start_ms)
        before = _reservation.c.counted_until_ms
        unchanged = before.is_(None) if window.counted_until_ms is None else before == window.counted_until_ms
        values = {
            "set_aside_milli_gpu_ms": _reservation.c.set_aside_milli_gpu_ms + set_aside,
            "unused_milli_gpu_ms": _reservation.c.unused_milli_gpu_ms + self.unused_milli_gpu_ms,
            "counted_until_ms": window.end_ms,
        }
        mine = and_(_reservation.c.id == window.reservation_id, unchanged)
        return connection.execute(update(_reservation).where(mine).values(**values)).rowcount == 1
