"""Leases: bound to attempts, stopped, ended, released. Only the leading scheduler writes them.

Owns the rows of `lease`, `lease_slice`, `lease_node`, `device_claim` and `attempt`, and the scheduler's changes of `job`. Decides nothing:
which change follows from what was seen is scheduler/service/transitions.py. Every command carries the leader's fence. A start that went
stale (job moved, slice taken) is dropped alone. A change whose job moved on is dropped alone and whole, its observations stay open: what
follows from them depends on what the job is now, so the next cycle chooses again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from domain.states import JobState, JobTarget
from store import tables
from store.in_lists import in_lists
from store.jobs import canonical
from store.leader import Fence

OPEN_LEASES_MAXIMUM = 200_000

_job = tables.Job.__table__  # type: ignore[attr-defined]
_tier = tables.Tier.__table__  # type: ignore[attr-defined]
_class = tables.JobClass.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_slice = tables.LeaseSlice.__table__  # type: ignore[attr-defined]
_part = tables.LeaseNode.__table__  # type: ignore[attr-defined]
_claim = tables.DeviceClaim.__table__  # type: ignore[attr-defined]
_attempt = tables.Attempt.__table__  # type: ignore[attr-defined]
_event = tables.Event.__table__  # type: ignore[attr-defined]
_node = tables.Node.__table__  # type: ignore[attr-defined]
_observation = tables.Observation.__table__  # type: ignore[attr-defined]

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
class BindStarts:
    """Make the leases of a plan, each guarded: the job still queued for that attempt, every slice still free."""

    fence: Fence
    starts: Sequence[StartToBind]
    now_ms: int

    def execute(self, connection: Connection, /) -> tuple[str, ...]:
        """Return the identifiers of the leases that were bound; the other starts were stale."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        jobs = _startable(connection, [start.job_id for start in self.starts])
        current = [start for start in self.starts if start.job_id in jobs and jobs[start.job_id].attempt + 1 == start.attempt]
        if not current:
            return ()
        if _try(connection, current, jobs, now_ms):
            return tuple(start.lease_id for start in current)
        return tuple(start.lease_id for start in current if _try(connection, [start], jobs, now_ms))


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
class ClassAnswer:
    """The newest answer for a class of jobs."""

    class_id: str
    reason_code: str | None
    reason_data: str | None
    reason_unblocks_when: str | None
    forecast_start_ms: int | None
    not_before_ms: int | None


@dataclass(frozen=True, slots=True)
class AnswerClasses:
    """Write answers that changed."""

    fence: Fence
    answers: Sequence[ClassAnswer]
    now_ms: int

    def execute(self, connection: Connection, /) -> None:
        """Update one row per class."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        statement = (
            update(_class)
            .where(_class.c.id == bindparam("class"))
            .values(
                reason_code=bindparam("code"),
                reason_data=bindparam("numbers"),
                reason_unblocks_when=bindparam("unblocks"),
                forecast_start_ms=bindparam("start"),
                not_before_ms=bindparam("earliest"),
                answered_at_ms=now_ms,
            )
        )
        values = [
            {
                "class": answer.class_id,
                "code": answer.reason_code,
                "numbers": answer.reason_data,
                "unblocks": answer.reason_unblocks_when,
                "start": answer.forecast_start_ms,
                "earliest": answer.not_before_ms,
            }
            for answer in self.answers
        ]
        connection.execute(statement, values)


@dataclass(frozen=True, slots=True)
class NodePart:
    """A lease's part on one node, and what is known of the node."""

    node_id: str
    node: str  # its name
    role: str  # head | worker
    is_gone: bool
    is_draining: bool
    is_lost: bool


@dataclass(frozen=True, slots=True)
class OpenLease:
    """A lease that still holds its slices, with its job."""

    id: str
    job_id: str
    attempt: int
    target: str
    stop_cause: str | None
    stop_requested_at_ms: int | None
    limit_ms: int
    grace_ms: int
    granted_at_ms: int
    running_at_ms: int | None
    ended_at_ms: int | None
    job_state: str
    job_target: str
    job_version: int
    job_attempt: int
    maximum_attempts: int
    tenant_id: str
    handle: str | None = None  # the executor's, JSON
    parts: tuple[NodePart, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenLeases:
    """Leases that are not released, all of them or those named."""

    ids: Sequence[str] | None = None

    def fetch(self, connection: Connection, /) -> tuple[OpenLease, ...]:
        """Return them in order of identifier."""
        if self.ids is None:
            return self._fetch(connection, [])
        return tuple(lease for some in in_lists(sorted(self.ids)) for lease in self._fetch(connection, [_lease.c.id.in_(some)]))

    def _fetch(self, connection: Connection, mine: Sequence[Any]) -> tuple[OpenLease, ...]:
        columns = (
            _lease.c.id, _lease.c.job_id, _lease.c.attempt, _lease.c.target, _lease.c.stop_cause, _lease.c.stop_requested_at_ms,
            _lease.c.limit_ms, _lease.c.grace_ms, _lease.c.granted_at_ms, _lease.c.running_at_ms, _lease.c.ended_at_ms,
            _job.c.state, _job.c.target.label("job_target"), _job.c.version, _job.c.attempt.label("job_attempt"), _job.c.maximum_attempts,
            _lease.c.tenant_id, _lease.c.handle,
        )  # fmt: skip
        statement = (
            select(*columns).select_from(_lease.join(_job, _job.c.id == _lease.c.job_id)).where(_lease.c.released_at_ms.is_(None), *mine)
        )
        rows = connection.execute(statement.order_by(_lease.c.id).limit(OPEN_LEASES_MAXIMUM)).all()
        parts = self._parts(connection, mine)
        values: list[tuple[Any, ...]] = [(*row, tuple(parts.get(row[0], ()))) for row in rows]
        return tuple(OpenLease(*row) for row in values)

    @staticmethod
    def _parts(connection: Connection, mine: Sequence[Any]) -> dict[str, list[NodePart]]:
        columns = (
            _part.c.lease_id, _part.c.node_id, _node.c.name, _part.c.role, _part.c.is_gone, _node.c.is_draining, _node.c.is_lost,
        )  # fmt: skip
        joined = _part.join(_lease, _lease.c.id == _part.c.lease_id).join(_node, _node.c.id == _part.c.node_id)
        parts: dict[str, list[NodePart]] = {}
        statement = select(*columns).select_from(joined).where(_lease.c.released_at_ms.is_(None), *mine)
        for lease_id, *rest in connection.execute(statement.order_by(_part.c.lease_id, _part.c.role, _node.c.name)):
            parts.setdefault(lease_id, []).append(NodePart(*rest))
        return parts


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from one observation or one step of reconciliation, for one lease. Times in `lease` and `job` are stamps.

    `job_version` guards a change of `job`: a job that moved on (a cancel came) makes the whole change void.
    """

    lease_id: str
    observation_ids: tuple[int, ...] = ()
    lease: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    job_version: int = 0
    job: Mapping[str, Any] = field(default_factory=dict)
    attempt: Mapping[str, Any] = field(default_factory=dict)
    gone_node_ids: tuple[str, ...] = ()
    is_released: bool = False
    events: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyChanges:
    """Apply changes in order. An observation that was applied already, or a job that moved on, makes its whole change void."""

    fence: Fence
    changes: Sequence[Change]
    now_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many changes were applied."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        return sum(1 for change in self.changes if _apply(connection, change, now_ms))


def _apply(connection: Connection, change: Change, now_ms: int) -> bool:
    columns = (_lease.c.tenant_id, _lease.c.job_id, _lease.c.attempt, _job.c.version)
    statement = select(*columns).select_from(_lease.join(_job, _job.c.id == _lease.c.job_id)).where(_lease.c.id == change.lease_id)
    # Locked, so that a cancel either came before and is seen, or comes after and finds the new version.
    lease = connection.execute(statement.with_for_update(of=_job, key_share=True)).one()
    if change.job and lease.version != change.job_version:
        return False
    if change.observation_ids:
        fresh = and_(_observation.c.id.in_(change.observation_ids), _observation.c.applied_at_ms.is_(None))
        if connection.execute(select(func.count()).where(fresh)).scalar_one() != len(change.observation_ids):
            return False
        connection.execute(update(_observation).where(fresh).values(applied_at_ms=now_ms))
    if change.lease:
        connection.execute(update(_lease).where(_lease.c.id == change.lease_id).values(**change.lease))
    if change.attempt:
        mine = and_(_attempt.c.job_id == lease.job_id, _attempt.c.number == lease.attempt)
        connection.execute(update(_attempt).where(mine).values(**change.attempt))
    if change.job:
        connection.execute(update(_job).where(_job.c.id == lease.job_id).values(**change.job, version=_job.c.version + 1))
    if change.gone_node_ids:
        mine = and_(_part.c.lease_id == change.lease_id, _part.c.node_id.in_(change.gone_node_ids))
        connection.execute(update(_part).where(mine).values(is_gone=True))
    if change.is_released:
        connection.execute(delete(_claim).where(_claim.c.lease_id == change.lease_id))
    rows = [
        {
            "at_ms": now_ms,
            "kind": kind,
            "tenant_id": lease.tenant_id,
            "job_id": lease.job_id,
            "lease_id": change.lease_id,
            "data": canonical(data),
        }
        for kind, data in change.events
    ]
    if rows:
        connection.execute(insert(_event), rows)
    return True
