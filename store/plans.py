"""Plans made durable: leases with their slices and claims, victims told to stop, nominations kept; one guarded transaction.

Owns the order of things in that transaction (the leases are store/binding.py), the rows of `nomination`, and what the scheduler keeps for
itself: the memory of fair sharing and how good forecasts were. Decides nothing. Intent is committed here before any effect; an event tells
each start and each stop. A tenant reads that it was stopped and why, never for whom: its event names no other tenant's job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store import binding, marks, tables
from store.binding import StartToBind
from store.calendar import POLICY_NAME
from store.jobs import canonical
from store.leader import Fence
from store.leases import OpenLease

_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_event = tables.Event.__table__  # type: ignore[attr-defined]
_nomination = tables.Nomination.__table__  # type: ignore[attr-defined]
_forecast = tables.ForecastRecord.__table__  # type: ignore[attr-defined]
_memory = tables.FairShareMemory.__table__  # type: ignore[attr-defined]

_insert_forecast = {
    "sqlite": sqlite.insert(_forecast).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_forecast).on_conflict_do_nothing(),
}


@dataclass(frozen=True, slots=True)
class StopToRequest:
    """A victim of a plan: the lease to stop, by which cause, and the job that it makes room for."""

    lease_id: str
    stop_cause: str  # a LeaseEndCause: preempted or reclaimed
    preemption_cause: str  # a PreemptionCause
    beneficiary_job_id: str


@dataclass(frozen=True, slots=True)
class NominationToKeep:
    """A nomination with names resolved to rows. `slices` are (replica, device, milli-GPU)."""

    job_id: str
    attempt: int
    class_id: str
    flavor: str | None
    slices: Sequence[tuple[int, str, int]]
    node_ids: Sequence[str]
    victims: Sequence[str]
    releases_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What a plan came to: the leases that were bound, those that were told to stop. `is_outdated`: nothing, because terms had changed."""

    bound: tuple[OpenLease, ...] = ()
    stopped: tuple[str, ...] = ()
    is_outdated: bool = False


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """Make the leases of a plan, tell its victims to stop and keep its nominations, each guarded.

    A start holds while its job is queued for that attempt, every slice is free and healthy and its nodes take jobs; a stop while its lease
    runs. What went stale is dropped alone. `nominations` replaces all that are kept, None leaves them. `terms_mark`: with other quotas
    than those that were decided on nothing is done.
    """

    fence: Fence
    now_ms: int
    starts: Sequence[StartToBind] = ()
    stops: Sequence[StopToRequest] = ()
    nominations: Sequence[NominationToKeep] | None = None
    terms_mark: str | None = None

    def execute(self, connection: Connection, /) -> Applied:
        """Return what was done."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        if self.terms_mark is not None and marks.of_terms(connection) != self.terms_mark:
            return Applied(is_outdated=True)
        if self.nominations is not None:
            _keep_nominations(connection, self.nominations)
        stopped = tuple(stop.lease_id for stop in self.stops if _request_stop(connection, stop, now_ms))
        return Applied(binding.bind(connection, self.starts, now_ms), stopped)


def _request_stop(connection: Connection, stop: StopToRequest, now_ms: int) -> bool:
    """Write down that a victim shall leave; False when it is leaving already."""
    columns = (_lease.c.job_id, _lease.c.tenant_id, _lease.c.attempt, _lease.c.granted_at_ms, _lease.c.running_at_ms)
    runs = and_(_lease.c.id == stop.lease_id, _lease.c.target == "run", _lease.c.ended_at_ms.is_(None))
    row = connection.execute(select(*columns).where(runs)).first()
    if row is None:
        return False
    values = {
        "target": "stop",
        "stop_cause": stop.stop_cause,
        "stop_requested_at_ms": max(now_ms, row.running_at_ms or row.granted_at_ms),  # stamps of a lease never go backwards
        "preemption_cause": stop.preemption_cause,
        "beneficiary_job_id": stop.beneficiary_job_id,
    }
    connection.execute(update(_lease).where(_lease.c.id == stop.lease_id).values(**values))
    data = canonical({"attempt": row.attempt, "cause": stop.stop_cause, "preemption_cause": stop.preemption_cause})
    event = {"at_ms": now_ms, "kind": "lease_stop_requested", "tenant_id": row.tenant_id, "job_id": row.job_id, "lease_id": stop.lease_id}
    connection.execute(insert(_event), {**event, "data": data})
    return True


def _keep_nominations(connection: Connection, nominations: Sequence[NominationToKeep]) -> None:
    connection.execute(delete(_nomination))
    rows = [
        {
            "job_id": item.job_id,
            "attempt": item.attempt,
            "class_id": item.class_id,
            "position": position,
            "flavor": item.flavor,
            "slices": canonical(item.slices),
            "node_ids": canonical(item.node_ids),
            "victims": canonical(item.victims),
            "releases_at_ms": item.releases_at_ms,
            "expires_at_ms": item.expires_at_ms,
        }
        for position, item in enumerate(nominations)
    ]
    if rows:
        connection.execute(insert(_nomination), rows)


@dataclass(frozen=True, slots=True)
class ForecastMade:
    """A start that was forecast, and when it came."""

    job_id: str
    attempt: int
    made_at_ms: int
    forecast_start_ms: int
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class RecordForecasts:
    """Keep how good forecasts were. One per attempt; a second one of the same attempt is dropped."""

    fence: Fence
    made: Sequence[ForecastMade]
    now_ms: int

    def execute(self, connection: Connection, /) -> None:
        """Insert them."""
        self.fence.stamp(connection, self.now_ms)
        rows = [{name: getattr(item, name) for name in ForecastMade.__dataclass_fields__} for item in self.made]
        connection.execute(_insert_forecast[connection.dialect.name], rows)


@dataclass(frozen=True, slots=True)
class KeepMemory:
    """Keep what fair sharing remembers, so that the next leader goes on from there."""

    fence: Fence
    half_life_ms: int
    observed_at_ms: int
    sums: Mapping[str, Mapping[str, int]]
    now_ms: int

    def execute(self, connection: Connection, /) -> None:
        """Replace the row."""
        self.fence.stamp(connection, self.now_ms)
        connection.execute(delete(_memory).where(_memory.c.name == POLICY_NAME))
        values = {"half_life_ms": self.half_life_ms, "observed_at_ms": self.observed_at_ms, "sums": canonical(self.sums)}
        connection.execute(insert(_memory), {"name": POLICY_NAME, **values})
