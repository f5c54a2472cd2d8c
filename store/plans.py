"""Plans made durable: leases with their slices and claims, victims told to stop, nominations kept; one guarded transaction.

Owns the first rows of `lease`, `lease_slice`, `lease_node`, `device_claim` and `attempt`, the rows of `nomination`, and what the scheduler
keeps for itself: the memory of fair sharing and how good forecasts were. What becomes of a
lease later is store/leases.py. Decides nothing. Intent is committed here before any effect; an event tells each start and each stop. A
tenant reads that it was stopped and why, never for whom: its event names no other tenant's job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from domain.slices import DeviceHealth
from domain.states import JobState, JobTarget
from store import marks, tables
from store.calendar import POLICY_NAME
from store.in_lists import in_lists
from store.jobs import canonical
from store.leader import Fence

_job = tables.Job.__table__  # type: ignore[attr-defined]
_tier = tables.Tier.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_slice = tables.LeaseSlice.__table__  # type: ignore[attr-defined]
_part = tables.LeaseNode.__table__  # type: ignore[attr-defined]
_claim = tables.DeviceClaim.__table__  # type: ignore[attr-defined]
_attempt = tables.Attempt.__table__  # type: ignore[attr-defined]
_event = tables.Event.__table__  # type: ignore[attr-defined]
_node = tables.Node.__table__  # type: ignore[attr-defined]
_device = tables.Device.__table__  # type: ignore[attr-defined]
_nomination = tables.Nomination.__table__  # type: ignore[attr-defined]
_forecast = tables.ForecastRecord.__table__  # type: ignore[attr-defined]
_memory = tables.FairShareMemory.__table__  # type: ignore[attr-defined]

_insert_forecast = {
    "sqlite": sqlite.insert(_forecast).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_forecast).on_conflict_do_nothing(),
}

_to_starting = (
    update(_job)
    .where(_job.c.id == bindparam("job"), _job.c.version == bindparam("seen"))
    .values(state=JobState.STARTING.value, attempt=bindparam("number"), version=_job.c.version + 1)
)


@dataclass(frozen=True, slots=True)
class SliceToBind:
    """One slice of a start. `mode` is the device's: `whole` for now."""

    replica: int
    node_id: str
    device_id: str
    milli_gpu: int
    mode: str = "whole"


@dataclass(frozen=True, slots=True)
class StartToBind:
    """A start of a plan, with names resolved to rows and a fresh identifier and token. `node_ids[i]` is where replica i goes."""

    lease_id: str
    token: str
    job_id: str
    attempt: int
    flavor: str | None
    milli_gpu: int
    slices: Sequence[SliceToBind]
    node_ids: Sequence[str]


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

    bound: tuple[str, ...] = ()
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
        return Applied(self._bind(connection, now_ms), stopped)

    def _bind(self, connection: Connection, now_ms: int) -> tuple[str, ...]:
        jobs = _startable(connection, [start.job_id for start in self.starts])
        unusable = _unusable(connection, self.starts)
        current = [start for start in self.starts if _is_current(start, jobs) and unusable.isdisjoint(_places(start))]
        if not current:
            return ()
        if _try(connection, current, jobs, now_ms):
            return tuple(start.lease_id for start in current)
        return tuple(start.lease_id for start in current if _try(connection, [start], jobs, now_ms))


def _is_current(start: StartToBind, jobs: Mapping[str, Any]) -> bool:
    return start.job_id in jobs and bool(jobs[start.job_id].attempt + 1 == start.attempt)


def _places(start: StartToBind) -> set[str]:
    return {*start.node_ids, *(item.device_id for item in start.slices)}


def _unusable(connection: Connection, starts: Sequence[StartToBind]) -> set[str]:
    """Return those nodes and devices of the starts that take no jobs any more."""
    node_ids = sorted({node_id for start in starts for node_id in start.node_ids})
    device_ids = sorted({item.device_id for start in starts for item in start.slices})
    away = or_(
        _node.c.is_cordoned.is_(True), _node.c.is_draining.is_(True), _node.c.is_lost.is_(True), _node.c.declared_gone_at_ms.is_not(None)
    )
    found: set[str] = set()
    for some in in_lists(node_ids):
        found.update(connection.execute(select(_node.c.id).where(_node.c.id.in_(some), away)).scalars())
    for some in in_lists(device_ids):
        unwell = and_(_device.c.id.in_(some), _device.c.health != DeviceHealth.HEALTHY.value)
        found.update(connection.execute(select(_device.c.id).where(unwell)).scalars())
    return found


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


def _startable(connection: Connection, job_ids: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for some in in_lists(sorted(job_ids)):
        statement = (
            select(_job, _tier.c.grace_ms)
            .select_from(_job.join(_tier, _tier.c.name == _job.c.tier))
            .where(
                _job.c.id.in_(some),
                _job.c.state == JobState.QUEUED.value,
                _job.c.target == JobTarget.RUN.value,
            )
            # Locked in order: a cancel either came before and is seen, or comes after and finds the new version.
            .order_by(_job.c.id)
            .with_for_update(of=_job, key_share=True)
        )
        found.update({row.id: row for row in connection.execute(statement)})
    return found


def _try(connection: Connection, starts: Sequence[StartToBind], jobs: Mapping[str, Any], now_ms: int) -> bool:
    connection.exec_driver_sql("SAVEPOINT bind")
    try:
        _insert_starts(connection, starts, jobs, now_ms)
    except IntegrityError:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT bind")
        connection.exec_driver_sql("RELEASE SAVEPOINT bind")
        return False
    connection.exec_driver_sql("RELEASE SAVEPOINT bind")
    return True


def _insert_starts(connection: Connection, starts: Sequence[StartToBind], jobs: Mapping[str, Any], now_ms: int) -> None:
    leases, parts, slices, claims, attempts, events, moves = [], [], [], [], [], [], []
    for start in starts:
        job = jobs[start.job_id]
        attempts.append({"job_id": start.job_id, "number": start.attempt, "lease_id": start.lease_id, "created_at_ms": now_ms})
        leases.append(_lease_row(start, job, now_ms))
        for order, node_id in enumerate(dict.fromkeys(start.node_ids)):
            replicas = sum(1 for other in start.node_ids if other == node_id)
            parts.append(
                {
                    "lease_id": start.lease_id,
                    "node_id": node_id,
                    "role": "head" if order == 0 else "worker",
                    "cpu_milli": job.cpu_milli_per_replica * replicas,
                    "memory_bytes": job.memory_bytes_per_replica * replicas,
                    "is_gone": False,
                }
            )
        for ordinal, item in enumerate(start.slices):
            key = {"lease_id": start.lease_id, "ordinal": ordinal, "device_id": item.device_id, "mode": item.mode}
            slices.append(key | {"replica": item.replica, "node_id": item.node_id, "milli_gpu": item.milli_gpu, "start_cell": 0})
            claims.append(key | {"cell": 0})
        data = canonical({"attempt": start.attempt, "slices": len(start.slices)})
        events.append(_event_row("job_leased", job, start.lease_id, now_ms, data))
        moves.append({"job": start.job_id, "seen": job.version, "number": start.attempt})
    for table, rows in ((_lease, leases), (_part, parts), (_slice, slices), (_claim, claims), (_attempt, attempts), (_event, events)):
        if rows:
            connection.execute(insert(table), rows)
    connection.execute(_to_starting, moves)


def _lease_row(start: StartToBind, job: Any, now_ms: int) -> dict[str, Any]:
    return {
        "id": start.lease_id,
        "job_id": start.job_id,
        "attempt": start.attempt,
        "tenant_id": job.tenant_id,
        "project_id": job.project_id,
        "user_id": job.user_id,
        "flavor": start.flavor,
        "slices": len(start.slices),
        "milli_gpu": start.milli_gpu,
        "target": "run",
        "token": start.token,
        "limit_ms": job.limit_ms,
        "grace_ms": job.grace_ms,
        "granted_at_ms": now_ms,
    }


def _event_row(kind: str, job: Any, lease_id: str, now_ms: int, data: str = "{}") -> dict[str, Any]:
    return {"at_ms": now_ms, "kind": kind, "tenant_id": job.tenant_id, "job_id": job.id, "lease_id": lease_id, "data": data}


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
