"""Leases to rate, usage lines, and what a report reads.

Owns the rows of `usage_line` and the mark `lease.rated_at_ms`. Called by billing/service (rating) and api (reports). Rows become values of
billing/calc here and nowhere else. A lease is rated once: the mark and its lines are written in one transaction, guarded by the
mark being unset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, insert, literal, select, text, update

from billing.calc import pricing, rating, report
from domain.intervals import Interval
from domain.states import FailureClass, LeaseEndCause
from store.errors import InvalidError
from store.tables import Lease, Price, Project, Tenant, UsageLine, User

RATE_BATCH_MAXIMUM = 500
REPORT_LINES_MAXIMUM = 2_000_000

_lease = Lease.__table__  # type: ignore[attr-defined]
_line = UsageLine.__table__  # type: ignore[attr-defined]
_price = Price.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ToRate:
    """A batch: leases that can be rated, the price book, and leases whose rows make no sense, each with what is wrong."""

    leases: tuple[rating.ClosedLease, ...]
    prices: tuple[pricing.Price, ...]
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LeasesToRate:
    """Ended leases without lines, oldest end first, at most `RATE_BATCH_MAXIMUM` beside those of `aside`, with the prices in `currency`."""

    currency: str
    aside: frozenset[str] = frozenset()

    def fetch(self, connection: Connection, /) -> ToRate:
        """Return the batch."""
        statement = (
            select(_lease)
            .where(and_(_lease.c.rated_at_ms.is_(None), _lease.c.ended_at_ms.is_not(None)))
            .order_by(_lease.c.ended_at_ms, _lease.c.id)
            .limit(RATE_BATCH_MAXIMUM + len(self.aside))
        )
        leases: list[rating.ClosedLease] = []
        unreadable: list[tuple[str, str]] = []
        for row in connection.execute(statement):
            if row.id in self.aside:
                continue
            try:
                leases.append(_closed_lease(row))
            except ValueError as error:
                unreadable.append((row.id, str(error)))
        return ToRate(tuple(leases), _prices(connection, self.currency) if leases else (), tuple(unreadable))


@dataclass(frozen=True, slots=True)
class StoreLines:
    """Write the lines of leases that are not rated yet; one that was rated meanwhile is left alone. `prices` is the book they follow."""

    lines: Sequence[rating.Line]
    lease_ids: Sequence[str]
    currency: str
    now_ms: int
    prices: Sequence[pricing.Price]

    def execute(self, connection: Connection, /) -> int | None:
        """Return how many leases were rated by this command; None, with nothing written, when the price book is another one by now."""
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE price IN SHARE MODE"))  # no price comes in until the lines are committed
        if _prices(connection, self.currency) != tuple(self.prices):
            return None
        rated = set()
        for lease_id in self.lease_ids:
            statement = update(_lease).where(and_(_lease.c.id == lease_id, _lease.c.rated_at_ms.is_(None))).values(rated_at_ms=self.now_ms)
            if connection.execute(statement).rowcount == 1:
                rated.add(lease_id)
        values = [self._values(line) for line in self.lines if line.lease.id in rated]
        if values:
            connection.execute(insert(_line), values)
        return len(rated)

    def _values(self, line: rating.Line) -> dict[str, Any]:
        lease = line.lease
        return {
            "id": line.id,
            "kind": line.kind.value,
            "corrects": None,
            "lease_id": lease.id,
            "tenant_id": lease.tenant_id,
            "project_id": lease.project_id,
            "user_id": lease.user_id,
            "job_id": lease.job_id,
            "flavor": lease.flavor,
            "start_ms": line.interval.start_ms,
            "end_ms": line.interval.end_ms,
            "milli_gpu": lease.milli_gpu,
            "milli_gpu_ms": line.milli_gpu_ms,
            "price_id": line.price_id,
            "units_per_hour": line.units_per_hour,
            "slices": lease.slices,
            "currency": self.currency,
            "amount_units": line.amount_units,
            "created_at_ms": self.now_ms,
        }


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report over a window reads, in one consistent state of the database. `names` are by identifier."""

    lines: tuple[report.ReportLine, ...]
    leases: tuple[rating.ClosedLease, ...]
    prices: tuple[pricing.Price, ...]
    unrated_leases: int
    open_leases: int
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class UsageBetween:
    """Lines and leases that touch `window`, of one tenant or of all."""

    window: Interval
    currency: str
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> ReportData:
        """Return the rows of the report and of its check; InvalidError when they are more than `REPORT_LINES_MAXIMUM`."""
        mine_of_lines = [_line.c.tenant_id == self.tenant_id] if self.tenant_id is not None else []
        mine = [_lease.c.tenant_id == self.tenant_id] if self.tenant_id is not None else []
        in_window = and_(_line.c.start_ms < self.window.end_ms, _line.c.end_ms > self.window.start_ms, _line.c.currency == self.currency)
        lines = select(_line).where(in_window, *mine_of_lines).order_by(_line.c.start_ms, _line.c.id)
        touches = and_(_lease.c.granted_at_ms < self.window.end_ms, _lease.c.ended_at_ms > self.window.start_ms)
        leases = select(_lease).where(touches, _lease.c.rated_at_ms.is_not(None), *mine)
        _refuse_too_many(connection, lines, leases)
        unrated = and_(touches, _lease.c.rated_at_ms.is_(None), *mine)
        still_open = and_(_lease.c.granted_at_ms < self.window.end_ms, _lease.c.ended_at_ms.is_(None), *mine)
        return ReportData(
            lines=tuple(_report_line(row) for row in connection.execute(lines)),
            leases=tuple(_closed_lease(row) for row in connection.execute(leases)),
            prices=_prices(connection, self.currency),
            unrated_leases=int(connection.execute(select(func.count()).select_from(_lease).where(unrated)).scalar_one()),
            open_leases=int(connection.execute(select(func.count()).select_from(_lease).where(still_open)).scalar_one()),
            names=_names(connection, self.tenant_id),
        )


def _refuse_too_many(connection: Connection, *statements: Select[Any]) -> None:
    """A report that leaves out rows would be a wrong one, so it is refused before anything is read."""
    for statement in statements:
        some = statement.with_only_columns(literal(1)).order_by(None).limit(REPORT_LINES_MAXIMUM + 1).subquery()
        if int(connection.execute(select(func.count()).select_from(some)).scalar_one()) > REPORT_LINES_MAXIMUM:
            message = f"from: the window holds more than {REPORT_LINES_MAXIMUM} usage lines or leases; ask for a shorter one"
            raise InvalidError("report_too_large", message, field="from", limit=REPORT_LINES_MAXIMUM)


def _closed_lease(row: Row[Any]) -> rating.ClosedLease:
    return rating.ClosedLease(
        id=row.id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        user_id=row.user_id,
        job_id=row.job_id,
        flavor=row.flavor,
        slices=row.slices,
        milli_gpu=row.milli_gpu,
        charged=Interval(row.granted_at_ms, row.ended_at_ms),
        end_cause=LeaseEndCause(row.end_cause),
        failure_class=FailureClass(row.failure_class) if row.failure_class else None,
    )


def _report_line(row: Row[Any]) -> report.ReportLine:
    return report.ReportLine(
        kind=rating.LineKind(row.kind),
        lease_id=row.lease_id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        user_id=row.user_id,
        job_id=row.job_id,
        flavor=row.flavor,
        interval=Interval(row.start_ms, row.end_ms),
        slices=row.slices,
        milli_gpu=row.milli_gpu,
        units_per_hour=row.units_per_hour,
        milli_gpu_ms=row.milli_gpu_ms,
        amount_units=row.amount_units,
    )


def _prices(connection: Connection, currency: str) -> tuple[pricing.Price, ...]:
    statement = select(_price).where(_price.c.currency == currency).order_by(_price.c.flavor, _price.c.valid_from_ms)
    return tuple(pricing.Price(row.valid_from_ms, row.id, row.flavor, row.units_per_hour) for row in connection.execute(statement))


def _names(connection: Connection, tenant_id: str | None) -> dict[str, str]:
    names: dict[str, str] = {}
    for table, owner in ((Tenant.__table__, "id"), (Project.__table__, "tenant_id"), (User.__table__, "tenant_id")):  # type: ignore[attr-defined]
        statement = select(table.c.id, table.c.name)
        if tenant_id is not None:
            statement = statement.where(table.c[owner] == tenant_id)
        names.update({row.id: row.name for row in connection.execute(statement)})
    return names
