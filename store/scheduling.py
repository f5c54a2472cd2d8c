"""Rows -> what the scheduler decides on: one consistent, frozen snapshot of fleet, quotas, leases and queue.

Owns only the reading. Queued jobs come grouped by class; only open rows are read, so the cost follows the work in hand, not the history.
Called by scheduler.service (to decide) and api (to estimate). Which quota node a job charges is store/quota_tree.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select

from domain.slices import DeviceHealth, DeviceMode, Flavor, Slice
from domain.states import JobState, JobTarget
from quotas.tree import Tree
from scheduler.decision import snapshot as decision
from store import quota_tree, shapes, tables

QUEUE_MAXIMUM = 200_000  # jobs read in one cycle, oldest first; the rest waits for a later cycle

_node = tables.Node.__table__  # type: ignore[attr-defined]
_device = tables.Device.__table__  # type: ignore[attr-defined]
_flavor = tables.Flavor.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_slice = tables.LeaseSlice.__table__  # type: ignore[attr-defined]
_part = tables.LeaseNode.__table__  # type: ignore[attr-defined]
_job = tables.Job.__table__  # type: ignore[attr-defined]
_class = tables.JobClass.__table__  # type: ignore[attr-defined]
_tier = tables.Tier.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot and what is needed to apply a plan that was made from it."""

    snapshot: decision.Snapshot
    class_ids: Mapping[decision.ClassKey, str]
    node_ids: Mapping[str, str]
    device_ids: Mapping[tuple[str, int], str]
    answers: Mapping[str, tuple[str | None, str | None, int | None, int | None]]  # class id -> (code, data, forecast_start, not_before)


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """Read everything that one decision at `now_ms` may know."""

    now_ms: int
    policy: decision.Policy

    def fetch(self, connection: Connection, /) -> Loaded:
        """Return the snapshot and its keys."""
        flavors = _flavors(connection)
        nodes, node_ids, device_ids = _nodes(connection)
        tree = quota_tree.read(connection, self.now_ms)
        running = _running(connection, tree)
        classes, class_ids, answers = _queue(connection, tree)
        snapshot = decision.from_rows(
            now_ms=self.now_ms, policy=self.policy, nodes=nodes, flavors=flavors, tree=tree, running=running, classes=classes
        )
        return Loaded(snapshot, class_ids, node_ids, device_ids, answers)


def _flavors(connection: Connection) -> dict[str, Flavor]:
    rows = connection.execute(select(_flavor.c.name, _flavor.c.gpu_model, _flavor.c.mode, _flavor.c.milli_gpu).order_by(_flavor.c.name))
    return {row.name: Flavor(row.name, row.gpu_model, DeviceMode(row.mode), row.milli_gpu) for row in rows}


def _nodes(connection: Connection) -> tuple[list[decision.Node], dict[str, str], dict[tuple[str, int], str]]:
    devices: dict[str, list[Any]] = {}
    for row in connection.execute(select(_device).order_by(_device.c.node_id, _device.c.device_index)):
        devices.setdefault(row.node_id, []).append(row)
    nodes, node_ids, device_ids = [], {}, {}
    for row in connection.execute(select(_node).where(_node.c.heartbeat_at_ms.is_not(None)).order_by(_node.c.name)):
        mine = devices.get(row.id, [])
        node_ids[row.name] = row.id
        device_ids.update({(row.name, device.device_index): device.id for device in mine})
        nodes.append(
            decision.Node(
                name=row.name,
                site=row.site,
                rack=row.rack or "",
                gpu_model=row.gpu_model,
                devices=tuple(
                    decision.Device(device.device_index, device.gpu_model, DeviceMode(device.mode), DeviceHealth(device.health))
                    for device in mine
                ),
                cpu_milli=row.cpu_milli,
                memory_bytes=row.memory_bytes,
                is_schedulable=not (row.is_cordoned or row.is_draining or row.is_lost),
                labels=json.loads(row.labels),
            )
        )
    return nodes, node_ids, device_ids


def _running(connection: Connection, tree: Tree) -> list[decision.RunningJob]:
    is_open = _lease.c.released_at_ms.is_(None)
    slices: dict[str, list[Slice]] = {}
    columns = (_slice.c.lease_id, _slice.c.replica, _node.c.name, _device.c.device_index, _slice.c.milli_gpu, _slice.c.profile)
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
    columns = (_lease, _job.c.seq, _job.c.submitted_at_ms, _job.c.priority, _class.c.shape, _tier.c.is_preemptible)
    joined = _lease.join(_job, _job.c.id == _lease.c.job_id).join(_class, _class.c.id == _job.c.class_id)
    joined = joined.join(_tier, _tier.c.name == _job.c.tier)
    found = []
    for row in connection.execute(select(*columns).select_from(joined).where(is_open).order_by(_job.c.seq)):
        shape, held = shapes.shape_of(row.shape), tuple(slices.get(row.id, ()))
        by_replica = {item.replica: item.node for item in held}
        found.append(
            decision.RunningJob(
                job=row.job_id,
                attempt=row.attempt,
                lease_id=row.id,
                tenant=quota_tree.leaf(tree, row.tenant_id, row.project_id),
                shape=shape,
                started_ms=row.granted_at_ms,
                limit_ms=row.limit_ms + row.grace_ms,
                seq=row.seq,
                submitted_ms=row.submitted_at_ms,
                flavor=row.flavor,
                slices=held,
                nodes=tuple(by_replica.get(replica, first_nodes.get(row.id, "")) for replica in range(shape.replicas)),
                priority=row.priority,
                is_preemptible=row.is_preemptible,
            )
        )
    return found


def _queue(
    connection: Connection, tree: Tree
) -> tuple[list[decision.JobClass], dict[decision.ClassKey, str], dict[str, tuple[str | None, str | None, int | None, int | None]]]:
    waiting = and_(_job.c.state == JobState.QUEUED.value, _job.c.target == JobTarget.RUN.value)
    columns = (_job.c.id, _job.c.seq, _job.c.submitted_at_ms, _job.c.attempt, _job.c.class_id)
    jobs: dict[str, list[decision.PendingJob]] = {}
    for row in connection.execute(select(*columns).where(waiting).order_by(_job.c.seq).limit(QUEUE_MAXIMUM)):
        jobs.setdefault(row.class_id, []).append(decision.PendingJob(row.id, row.seq, row.submitted_at_ms, row.attempt + 1))
    classes, class_ids, answers = [], {}, {}
    with_jobs = select(_class).where(_class.c.id.in_(select(_job.c.class_id).where(waiting).distinct()))
    for row in connection.execute(with_jobs):
        if row.id not in jobs:
            continue
        key = decision.ClassKey(
            tenant=quota_tree.leaf(tree, row.tenant_id, row.project_id),
            shape=shapes.shape_of(row.shape),
            limit_ms=row.limit_ms,
            priority=row.priority,
            project=row.project_id,
        )
        class_ids[key] = row.id
        answers[row.id] = (row.reason_code, row.reason_data, row.forecast_start_ms, row.not_before_ms)
        classes.append(decision.JobClass(key, jobs[row.id]))
    return decision.order_classes(classes), class_ids, answers
