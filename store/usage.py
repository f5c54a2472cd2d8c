"""Leases to rate, usage lines, and what a report reads.

Owns the rows of `usage_line` and the mark `lease.rated_at_ms`. Called by billing/service (rating) and api (reports). Plain tuples cross the
border: this layer does not import billing, so each question returns frozen values that billing/calc understands after one mapping.
A lease is rated once: the mark and its lines are written in one transaction, guarded by the mark being unset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, and_, func, insert, select, update

from store.tables import Lease, Price, Project, Tenant, UsageLine, User

RATE_BATCH_MAXIMUM = 500
REPORT_LINES_MAXIMUM = 2_000_000

_lease = Lease.__table__  # type: ignore[attr-defined]
_line = UsageLine.__table__  # type: ignore[attr-defined]
_price = Price.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class EndedLease:
    """A lease with a charged interval, as it is stored."""

    id: str
    tenant_id: str
    project_id: str
    user_id: str
    job_id: str
    flavor: str | None
    slices: int
    milli_gpu: int
    granted_at_ms: int
    ended_at_ms: int
    end_cause: str
    failure_class: str | None


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A row of the price book."""

    id: str
    flavor: str
    units_per_hour: int
    valid_from_ms: int


@dataclass(frozen=True, slots=True)
class UsageLineRow:
    """A usage line, field for field as in the table."""

    id: str
    kind: str
    lease_id: str
    tenant_id: str
    project_id: str
    user_id: str
    job_id: str
    flavor: str | None
    start_ms: int
    end_ms: int
    milli_gpu: int
    milli_gpu_ms: int
    price_id: str | None
    units_per_hour: int
    slices: int
    currency: str
    amount_units: int


_LEASE_COLUMNS = tuple(_lease.c[name] for name in EndedLease.__dataclass_fields__)
_LINE_COLUMNS = tuple(_line.c[name] for name in UsageLineRow.__dataclass_fields__)


def _price_rows(connection: Connection, currency: str) -> tuple[PriceRow, ...]:
    statement = select(_price.c.id, _price.c.flavor, _price.c.units_per_hour, _price.c.valid_from_ms).where(_price.c.currency == currency)
    return tuple(PriceRow(*row) for row in connection.execute(statement.order_by(_price.c.flavor, _price.c.valid_from_ms)))


@dataclass(frozen=True, slots=True)
class LeasesToRate:
    """Ended leases without lines, oldest end first, at most `RATE_BATCH_MAXIMUM`, with the price book of `currency`."""

    currency: str

    def fetch(self, connection: Connection, /) -> tuple[tuple[EndedLease, ...], tuple[PriceRow, ...]]:
        """Return (leases, prices)."""
        statement = (
            select(*_LEASE_COLUMNS)
            .where(and_(_lease.c.rated_at_ms.is_(None), _lease.c.ended_at_ms.is_not(None)))
            .order_by(_lease.c.ended_at_ms, _lease.c.id)
            .limit(RATE_BATCH_MAXIMUM)
        )
        leases = tuple(EndedLease(*row) for row in connection.execute(statement))
        return leases, _price_rows(connection, self.currency) if leases else ()


@dataclass(frozen=True, slots=True)
class StoreLines:
    """Write the lines of leases that are not rated yet; a lease that was rated meanwhile is left alone."""

    lines: Sequence[UsageLineRow]
    lease_ids: Sequence[str]
    now_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many leases were rated by this command."""
        rated = set()
        for lease_id in self.lease_ids:
            statement = update(_lease).where(and_(_lease.c.id == lease_id, _lease.c.rated_at_ms.is_(None))).values(rated_at_ms=self.now_ms)
            if connection.execute(statement).rowcount == 1:
                rated.add(lease_id)
        values = [asdict(line) | {"created_at_ms": self.now_ms, "corrects": None} for line in self.lines if line.lease_id in rated]
        if values:
            connection.execute(insert(_line), values)
        return len(rated)


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report over [start_ms, end_ms) reads, in one consistent state of the database."""

    lines: tuple[UsageLineRow, ...]
    leases: tuple[EndedLease, ...]
    prices: tuple[PriceRow, ...]
    unrated_leases: int
    open_leases: int
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class UsageBetween:
    """Lines and leases that touch [start_ms, end_ms), of one tenant or of all."""

    start_ms: int
    end_ms: int
    currency: str
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> ReportData:
        """Return the rows of the report and of its check, and the names of tenants, projects and users by identifier."""
        in_window = and_(_line.c.start_ms < self.end_ms, _line.c.end_ms > self.start_ms, _line.c.currency == self.currency)
        lines = select(*_LINE_COLUMNS).where(in_window).order_by(_line.c.start_ms, _line.c.id).limit(REPORT_LINES_MAXIMUM)
        touches = and_(_lease.c.granted_at_ms < self.end_ms, _lease.c.ended_at_ms > self.start_ms)
        leases = select(*_LEASE_COLUMNS).where(and_(touches, _lease.c.rated_at_ms.is_not(None)))
        unrated = select(func.count()).select_from(_lease).where(and_(touches, _lease.c.rated_at_ms.is_(None)))
        still_open = (
            select(func.count()).select_from(_lease).where(and_(_lease.c.granted_at_ms < self.end_ms, _lease.c.ended_at_ms.is_(None)))
        )
        if self.tenant_id is not None:
            lines = lines.where(_line.c.tenant_id == self.tenant_id)
            leases = leases.where(_lease.c.tenant_id == self.tenant_id)
            unrated = unrated.where(_lease.c.tenant_id == self.tenant_id)
            still_open = still_open.where(_lease.c.tenant_id == self.tenant_id)
        found = tuple(UsageLineRow(*row) for row in connection.execute(lines))
        return ReportData(
            lines=found,
            leases=tuple(EndedLease(*row) for row in connection.execute(leases)),
            prices=_price_rows(connection, self.currency),
            unrated_leases=int(connection.execute(unrated).scalar_one()),
            open_leases=int(connection.execute(still_open).scalar_one()),
            names=_names(connection, found, self.tenant_id),
        )


def _names(connection: Connection, lines: Sequence[UsageLineRow], tenant_id: str | None) -> dict[str, str]:
    if not lines:
        return {}
    names: dict[str, str] = {}
    for table, owner in ((Tenant.__table__, "id"), (Project.__table__, "tenant_id"), (User.__table__, "tenant_id")):  # type: ignore[attr-defined]
        statement = select(table.c.id, table.c.name)
        if tenant_id is not None:
            statement = statement.where(table.c[owner] == tenant_id)
        names.update({row[0]: row[1] for row in connection.execute(statement)})
    return names
