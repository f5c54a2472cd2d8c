"""The rows of work in hand: queued jobs by class, and open leases as running jobs; all of them, or those of named jobs.

Owns only the reading, so that a snapshot from scratch (store/scheduling.py) and the scheduler's index (scheduler/service/index.py) rest on
the same lines. A job that is neither queued nor under an open lease has no place here: asked for by name, it is simply not among the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, select

from domain.slices import Slice
from domain.states import JobState, JobTarget
from quotas.tree import Tree
from scheduler.decision.snapshot import ClassKey, PendingJob, RunningJob
from store import quota_tree, shapes, tables
from store.in_lists import in_lists

QUEUE_MAXIMUM = 1_000_000  # jobs read at once, oldest first

Answer = tuple[str | None, str | None, str | None, int | None, int | None]  # code, data, unblocks_when, forecast_start, not_before

_node = tables.Node.__table__  # type: ignore[attr-defined]
_device = tables.Device.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_slice = tables.LeaseSlice.__table__  # type: ignore[attr-defined]
_part = tables.LeaseNode.__table__  # type: ignore[attr-defined]
_job = tables.Job.__table__  # type: ignore[attr-defined]
_class = tables.JobClass.__table__  # type: ignore[attr-defined]
_tier = tables.Tier.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class as its row has it. Which quota node it charges depends on the tree of the moment: `key_of`."""

    id: str
    tenant_id: str
    project_id: str
    key: ClassKey  # charged to the tenant
    grace_ms: int
    answer: Answer

    def key_of(self, tree: Tree) -> ClassKey:
        """Return the key with the leaf that is charged now."""
        leaf = quota_tree.leaf(tree, self.tenant_id, self.project_id)
        if leaf == self.tenant_id:
            return self.key
        return replace(self.key, tenant=leaf)


def queued(connection: Connection, job_ids: Sequence[str] | None = None) -> dict[str, list[PendingJob]]:
    """Return queued jobs by class, in order of arrival."""
    found: dict[str, list[PendingJob]] = {}
    for mine in _narrowed(_job.c.id, job_ids):
        waiting = and_(_job.c.state == JobState.QUEUED.value, _job.c.target == JobTarget.RUN.value, *mine)
        columns = (_job.c.id, _job.c.seq, _job.c.submitted_at_ms, _job.c.attempt, _job.c.was_preempted, _job.c.class_id)
        statement = select(*columns).where(waiting)
        for job, seq, at_ms, attempt, was_preempted, class_id in connection.execute(statement.order_by(_job.c.seq).limit(QUEUE_MAXIMUM)):
            found.setdefault(class_id, []).append(PendingJob(job, seq, at_ms, attempt + 1, bool(was_preempted)))
    return found


def classes(connection: Connection, class_ids: Iterable[str]) -> dict[str, ClassRow]:
    """Return the named classes."""
    found = {}
    for some in in_lists(sorted(class_ids)):
        joined = _class.join(_tier, _tier.c.name == _class.c.tier)
        columns = (_class, _tier.c.is_preemptible, _tier.c.grace_ms)
        for row in connection.execute(select(*columns).select_from(joined).where(_class.c.id.in_(some))):
            key = ClassKey(
                tenant=row.tenant_id,
                shape=shapes.shape_of(row.shape),
                limit_ms=row.limit_ms,
                priority=row.priority,
                project=row.project_id,
                user=row.user_id,
                is_preemptible=bool(row.is_preemptible),
                where=shapes.place_of(row.place),
                tier=row.tier,
            )
            answer = (row.reason_code, row.reason_data, row.reason_unblocks_when, row.forecast_start_ms, row.not_before_ms)
            found[row.id] = ClassRow(row.id, row.tenant_id, row.project_id, key, row.grace_ms, answer)
    return found


def running(connection: Connection, job_ids: Sequence[str] | None = None) -> list[tuple[RunningJob, str]]:
    """Return (running job charged to its tenant, project) of open leases in order of arrival."""
    found: list[tuple[RunningJob, str]] = []
    for mine in _narrowed(_lease.c.job_id, job_ids):
        found += _running(connection, mine)
    return sorted(found, key=lambda item: (item[0].seq, item[0].attempt))


def _running(connection: Connection, mine: Sequence[Any]) -> list[tuple[RunningJob, str]]:
    is_open = and_(_lease.c.released_at_ms.is_(None), *mine)
    slices: dict[str, list[Slice]] = {}
    columns: tuple[Any, ...] = (
        _slice.c.lease_id,
        _slice.c.replica,
        _node.c.name,
        _device.c.device_index,
        _slice.c.milli_gpu,
        _slice.c.profile,
    )
    joined = _slice.join(_lease, _lease.c.id == _slice.c.lease_id).join(_node, _node.c.id == _slice.c.node_id)
    joined = joined.join(_device, _device.c.id == _slice.c.device_id)
    statement = select(*columns).select_from(joined).where(is_open).order_by(_slice.c.lease_id, _slice.c.ordinal)
    for lease_id, *rest in connection.execute(statement):
        slices.setdefault(lease_id, []).append(Slice(*rest))
    first_nodes: dict[str, str] = {}
    in_order = (_part.c.lease_id, _part.c.role, _node.c.name)
    parts = _part.join(_lease, _lease.c.id == _part.c.lease_id).join(_node, _node.c.id == _part.c.node_id)
    for row in connection.execute(select(_part.c.lease_id, _node.c.name).select_from(parts).where(is_open).order_by(*in_order)):
        first_nodes.setdefault(row.lease_id, row.name)
    columns = (
        _lease,
        _job.c.seq,
        _job.c.submitted_at_ms,
        _job.c.priority,
        _job.c.checkpoint_at_ms,
        _class.c.shape,
        _class.c.user_id.label("class_user_id"),
        _tier.c.is_preemptible,
    )
    joined = _lease.join(_job, _job.c.id == _lease.c.job_id).join(_class, _class.c.id == _job.c.class_id)
    joined = joined.join(_tier, _tier.c.name == _job.c.tier)
    return [
        (_running_job(row, tuple(slices.get(row.id, ())), first_nodes.get(row.id, "")), row.project_id)
        for row in connection.execute(select(*columns).select_from(joined).where(is_open))
    ]


def _running_job(row: Any, held: tuple[Slice, ...], first_node: str) -> RunningJob:
    shape = shapes.shape_of(row.shape)
    by_replica = {item.replica: item.node for item in held}
    checkpoint_ms = row.checkpoint_at_ms if row.checkpoint_at_ms is not None and row.checkpoint_at_ms >= row.granted_at_ms else None
    return RunningJob(
        job=row.job_id,
        attempt=row.attempt,
        lease_id=row.id,
        tenant=row.tenant_id,
        shape=shape,
        started_ms=row.granted_at_ms,
        limit_ms=_limit_ms(row),
        seq=row.seq,
        submitted_ms=row.submitted_at_ms,
        flavor=row.flavor,
        slices=held,
        nodes=tuple(by_replica.get(replica, first_node) for replica in range(shape.replicas)),
        priority=row.priority,
        is_preemptible=bool(row.is_preemptible),
        checkpoint_ms=checkpoint_ms,
        user=row.class_user_id,  # as its class was counted while it waited
        releases_ms=_releases_ms(row),
        grace_ms=row.grace_ms,
    )


def _limit_ms(row: Any) -> int:
    """From the grant until the slices are back at the latest: the limit counts from the moment that the entrypoint runs."""
    starting_ms = row.running_at_ms - row.granted_at_ms if row.running_at_ms is not None else 0
    return int(starting_ms + row.limit_ms + row.grace_ms)


def _releases_ms(row: Any) -> int | None:
    """When a lease that shall stop, or whose program has exited, gives its slices back at the latest."""
    if row.target == "run" and row.ended_at_ms is None:
        return None
    asked_ms = row.stop_requested_at_ms if row.stop_requested_at_ms is not None else row.ended_at_ms
    return int((asked_ms if asked_ms is not None else row.granted_at_ms) + row.grace_ms)


def _narrowed(column: Any, ids: Sequence[str] | None) -> Iterable[Sequence[Any]]:
    return [[]] if ids is None else ([column.in_(some)] for some in in_lists(sorted(ids)))
