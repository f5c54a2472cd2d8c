"""Starts made durable: a lease with its named slices, their claims and its attempt, each guarded.

Owns the first rows of `lease`, `lease_slice`, `lease_node`, `device_claim` and `attempt`. A start that went stale (its job moved on, a
slice is taken or sick, a node takes no jobs) is dropped alone. This is a hot path: statements are compiled once and rows are tuples in the
order of their columns. Called by store/plans.py; what becomes of a lease later is store/leases.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from domain.slices import DeviceHealth
from domain.states import JobState, JobTarget
from store import hot, tables
from store.in_lists import in_lists
from store.jobs import canonical
from store.leases import NodePart, OpenLease

_job = tables.Job.__table__  # type: ignore[attr-defined]
_tier = tables.Tier.__table__  # type: ignore[attr-defined]
_node = tables.Node.__table__  # type: ignore[attr-defined]
_device = tables.Device.__table__  # type: ignore[attr-defined]

_LEASE = (
    "id", "job_id", "attempt", "tenant_id", "project_id", "user_id", "flavor", "slices", "milli_gpu", "target", "token", "limit_ms",
    "grace_ms", "granted_at_ms",
)  # fmt: skip
_insert_lease = hot.insert_into(tables.Lease.__table__, _LEASE)  # type: ignore[attr-defined]
_insert_part = hot.insert_into(
    tables.LeaseNode.__table__,  # type: ignore[attr-defined]
    ("lease_id", "node_id", "role", "cpu_milli", "memory_bytes", "is_gone"),
)
_insert_slice = hot.insert_into(
    tables.LeaseSlice.__table__,  # type: ignore[attr-defined]
    ("lease_id", "ordinal", "replica", "node_id", "device_id", "mode", "milli_gpu", "start_cell"),
)
_insert_claim = hot.insert_into(tables.DeviceClaim.__table__, ("device_id", "cell", "mode", "lease_id", "ordinal"))  # type: ignore[attr-defined]
_insert_attempt = hot.insert_into(tables.Attempt.__table__, ("job_id", "number", "lease_id", "created_at_ms"))  # type: ignore[attr-defined]
_insert_event = hot.insert_into(tables.Event.__table__, ("at_ms", "kind", "tenant_id", "job_id", "lease_id", "data"))  # type: ignore[attr-defined]
_to_starting = hot.HotStatement(
    ("to_state", "to_version", "to_attempt", "job", "seen"),
    lambda _: (
        update(_job)
        .where(_job.c.id == bindparam("job"), _job.c.version == bindparam("seen"))
        .values(state=bindparam("to_state"), version=bindparam("to_version"), attempt=bindparam("to_attempt"))
    ),
)

# What a start needs to know of its job, in the order of `_Startable`.
_JOB = (
    _job.c.id, _job.c.version, _job.c.attempt, _job.c.tenant_id, _job.c.project_id, _job.c.user_id, _job.c.limit_ms, _tier.c.grace_ms,
    _job.c.cpu_milli_per_replica, _job.c.memory_bytes_per_replica, _job.c.maximum_attempts, _job.c.failed_attempts,
)  # fmt: skip


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
    """A start of a plan, with names resolved to rows and a fresh identifier and token. `node_ids[i]` is where replica i goes.

    `nodes` are the names of `node_ids`: the lease that comes of it tells them.
    """

    lease_id: str
    token: str
    job_id: str
    attempt: int
    flavor: str | None
    milli_gpu: int
    slices: Sequence[SliceToBind]
    node_ids: Sequence[str]
    nodes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Startable:
    """A job that can be started."""

    id: str
    version: int
    attempt: int
    tenant_id: str
    project_id: str
    user_id: str
    limit_ms: int
    grace_ms: int
    cpu_milli_per_replica: int
    memory_bytes_per_replica: int
    maximum_attempts: int
    failed_attempts: int


def bind(connection: Connection, starts: Sequence[StartToBind], now_ms: int) -> tuple[OpenLease, ...]:
    """Make the leases of these starts; return those that were made. The others were stale."""
    if not starts:
        return ()
    jobs = _startable(connection, [start.job_id for start in starts])
    unusable = _unusable(connection, starts)
    current = [start for start in starts if _is_current(start, jobs) and unusable.isdisjoint(_places(start))]
    if not current:
        return ()
    if not _try(connection, current, jobs, now_ms):
        current = [start for start in current if _try(connection, [start], jobs, now_ms)]
    return tuple(_open_lease(start, jobs[start.job_id], now_ms) for start in current)


def _is_current(start: StartToBind, jobs: Mapping[str, _Startable]) -> bool:
    return start.job_id in jobs and jobs[start.job_id].attempt + 1 == start.attempt


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


def _startable(connection: Connection, job_ids: Sequence[str]) -> dict[str, _Startable]:
    found: dict[str, _Startable] = {}
    for some in in_lists(sorted(job_ids)):
        waiting = and_(_job.c.id.in_(some), _job.c.state == JobState.QUEUED.value, _job.c.target == JobTarget.RUN.value)
        # Locked in order: a cancel either came before and is seen, or comes after and finds the new version.
        statement = select(*_JOB).select_from(_job.join(_tier, _tier.c.name == _job.c.tier)).where(waiting).order_by(_job.c.id)
        for row in connection.execute(statement.with_for_update(of=_job, key_share=True)):
            found[row[0]] = _Startable(*tuple(row))
    return found


def _try(connection: Connection, starts: Sequence[StartToBind], jobs: Mapping[str, _Startable], now_ms: int) -> bool:
    connection.exec_driver_sql("SAVEPOINT bind")
    try:
        _insert(connection, starts, jobs, now_ms)
    except hot.broken_constraint(connection):
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT bind")
        connection.exec_driver_sql("RELEASE SAVEPOINT bind")
        return False
    connection.exec_driver_sql("RELEASE SAVEPOINT bind")
    return True


def _insert(connection: Connection, starts: Sequence[StartToBind], jobs: Mapping[str, _Startable], now_ms: int) -> None:
    leases: list[tuple[object, ...]] = []
    parts: list[tuple[object, ...]] = []
    slices: list[tuple[object, ...]] = []
    claims: list[tuple[object, ...]] = []
    attempts: list[tuple[object, ...]] = []
    events: list[tuple[object, ...]] = []
    moves: list[tuple[object, ...]] = []
    for start in starts:
        job, lease = jobs[start.job_id], start.lease_id
        owner = (job.tenant_id, job.project_id, job.user_id)
        held = (start.flavor, len(start.slices), start.milli_gpu)
        leases.append((lease, job.id, start.attempt, *owner, *held, "run", start.token, job.limit_ms, job.grace_ms, now_ms))
        attempts.append((job.id, start.attempt, lease, now_ms))
        for node_id, role, replicas in _roles(start.node_ids):
            asked = (job.cpu_milli_per_replica * replicas, job.memory_bytes_per_replica * replicas)
            parts.append((lease, node_id, role, *asked, False))
        for ordinal, item in enumerate(start.slices):
            slices.append((lease, ordinal, item.replica, item.node_id, item.device_id, item.mode, item.milli_gpu, 0))
            claims.append((item.device_id, 0, item.mode, lease, ordinal))
        data = canonical({"attempt": start.attempt, "slices": len(start.slices)})
        events.append((now_ms, "job_leased", job.tenant_id, job.id, lease, data))
        moves.append((JobState.STARTING.value, job.version + 1, start.attempt, job.id, job.version))
    for statement, rows in (
        (_insert_lease, leases), (_insert_part, parts), (_insert_slice, slices), (_insert_claim, claims), (_insert_attempt, attempts),
        (_insert_event, events), (_to_starting, moves),
    ):  # fmt: skip
        if rows:
            statement.run_many(connection, rows)


def _roles(nodes: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return (node, role, replicas there) of each node of a gang, the head first."""
    return [(node, "worker" if order else "head", nodes.count(node)) for order, node in enumerate(dict.fromkeys(nodes))]


def _open_lease(start: StartToBind, job: _Startable, now_ms: int) -> OpenLease:
    """Return what `OpenLeases` would read of a lease that was made just now: its nodes were usable a moment ago."""
    names = dict(zip(start.node_ids, start.nodes, strict=True))
    parts = [NodePart(node_id, names[node_id], role, False, False, False) for node_id, role, _ in _roles(start.node_ids)]
    return OpenLease(
        id=start.lease_id,
        job_id=job.id,
        attempt=start.attempt,
        target="run",
        stop_cause=None,
        stop_requested_at_ms=None,
        limit_ms=job.limit_ms,
        grace_ms=job.grace_ms,
        granted_at_ms=now_ms,
        running_at_ms=None,
        ended_at_ms=None,
        job_state=JobState.STARTING.value,
        job_target=JobTarget.RUN.value,
        job_version=job.version + 1,
        job_attempt=start.attempt,
        maximum_attempts=job.maximum_attempts,
        tenant_id=job.tenant_id,
        failed_attempts=job.failed_attempts,
        parts=tuple(sorted(parts, key=lambda part: (part.role, part.node))),
    )
