"""Leases after they were bound: stopped, ended, released. Only the leading scheduler writes them.

Owns the changes of `lease`, `lease_node`, `device_claim` and `attempt`, and the scheduler's changes of `job`; their first rows are made by
store/plans.py. Decides nothing: which change follows from what was seen is scheduler/service/transitions.py. Every command carries the
leader's fence. A change whose job moved on is dropped alone and whole, its observations stay open: what follows from them depends on what
the job is now, so the next cycle chooses again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

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
    is_declared_gone: bool = False


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
    failed_attempts: int = 0  # of the job, before this one
    parts: tuple[NodePart, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenLeases:
    """Leases that are not released, all of them or those named."""

    ids: Sequence[str] | None = None

    def fetch(self, connection: Connection, /) -> tuple[OpenLease, ...]:
        """Return them in order of identifier."""
        if self.ids is None:
            return _open_leases(connection, [])
        return tuple(lease for some in in_lists(sorted(self.ids)) for lease in _open_leases(connection, [_lease.c.id.in_(some)]))


def _open_leases(connection: Connection, mine: Sequence[Any]) -> tuple[OpenLease, ...]:
    columns = (
        _lease.c.id, _lease.c.job_id, _lease.c.attempt, _lease.c.target, _lease.c.stop_cause, _lease.c.stop_requested_at_ms,
        _lease.c.limit_ms, _lease.c.grace_ms, _lease.c.granted_at_ms, _lease.c.running_at_ms, _lease.c.ended_at_ms,
        _job.c.state, _job.c.target.label("job_target"), _job.c.version, _job.c.attempt.label("job_attempt"), _job.c.maximum_attempts,
        _lease.c.tenant_id, _lease.c.handle, _job.c.failed_attempts,
    )  # fmt: skip
    statement = (
        select(*columns).select_from(_lease.join(_job, _job.c.id == _lease.c.job_id)).where(_lease.c.released_at_ms.is_(None), *mine)
    )
    rows = connection.execute(statement.order_by(_lease.c.id).limit(OPEN_LEASES_MAXIMUM)).all()
    parts = _parts(connection, mine)
    values: list[tuple[Any, ...]] = [(*row, tuple(parts.get(row[0], ()))) for row in rows]
    return tuple(OpenLease(*row) for row in values)


def _parts(connection: Connection, mine: Sequence[Any]) -> dict[str, list[NodePart]]:
    columns = (
        _part.c.lease_id, _part.c.node_id, _node.c.name, _part.c.role, _part.c.is_gone, _node.c.is_draining, _node.c.is_lost,
        _node.c.declared_gone_at_ms.is_not(None),
    )  # fmt: skip
    joined = _part.join(_lease, _lease.c.id == _part.c.lease_id).join(_node, _node.c.id == _part.c.node_id)
    parts: dict[str, list[NodePart]] = {}
    statement = select(*columns).select_from(joined).where(_lease.c.released_at_ms.is_(None), *mine)
    for lease_id, *rest in connection.execute(statement.order_by(_part.c.lease_id, _part.c.role, _node.c.name)):
        parts.setdefault(lease_id, []).append(NodePart(*rest))
    return parts


@dataclass(frozen=True, slots=True)
class OpenLeasesOf:
    """Leases of the named jobs that are not released."""

    job_ids: Sequence[str]

    def fetch(self, connection: Connection, /) -> tuple[OpenLease, ...]:
        """Return them."""
        return tuple(lease for some in in_lists(sorted(self.job_ids)) for lease in _open_leases(connection, [_lease.c.job_id.in_(some)]))


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
