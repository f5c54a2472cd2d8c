"""Rows -> what the scheduler decides on: fleet, quotas, leases, queue and calendar, from one consistent state of the database.

Owns only the reading and how the parts become one frozen snapshot. Only open rows are read, so the cost follows the work in hand, not the
history. Called by scheduler.service (whose index keeps the parts up to date) and api (to estimate). Which quota node a job charges is
store/quota_tree.py, the jobs and leases themselves are store/live_rows.py.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, func, select

from domain.slices import DeviceHealth, DeviceMode, Flavor, Slice
from domain.states import LeaseEndCause
from quotas.decay import Memory
from quotas.tree import Tree
from scheduler.decision import snapshot as decision
from store import calendar, live_rows, marks, quota_tree, tables
from store.in_lists import in_lists
from store.live_rows import Answer, ClassRow

_node = tables.Node.__table__  # type: ignore[attr-defined]
_device = tables.Device.__table__  # type: ignore[attr-defined]
_flavor = tables.Flavor.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_part = tables.LeaseNode.__table__  # type: ignore[attr-defined]
_quota = tables.Quota.__table__  # type: ignore[attr-defined]
_tenant = tables.Tenant.__table__  # type: ignore[attr-defined]
_nomination = tables.Nomination.__table__  # type: ignore[attr-defined]
_memory = tables.FairShareMemory.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class FleetRows:
    """Nodes that have reported, what they have, and how their names map to rows."""

    mark: str
    nodes: Sequence[decision.Node]
    flavors: Mapping[str, Flavor]
    node_ids: Mapping[str, str]
    device_ids: Mapping[tuple[str, int], str]


@dataclass(frozen=True, slots=True)
class TermsRows:
    """What operators set: policy, quota tree without usage, calendar, suspended tenants.

    `changes_at_ms` is when the dates of quota rows next change the tree, or when the calendar must be unrolled further.
    """

    mark: str
    policy: decision.Policy
    tree: Tree
    changes_at_ms: int | None
    calendar: calendar.Calendar
    suspended: frozenset[str]


@dataclass(frozen=True, slots=True)
class NominationRow:
    """A nomination; the class whose job it is."""

    nomination: decision.Nomination
    class_id: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything that decisions rest on, at one moment. Running jobs come with their projects."""

    now_ms: int
    fleet: FleetRows
    terms: TermsRows
    queued: Mapping[str, Sequence[decision.PendingJob]]
    classes: Mapping[str, ClassRow]
    running: Sequence[tuple[decision.RunningJob, str]]
    nominations: Sequence[NominationRow]
    preemptions: Sequence[tuple[decision.Pool, int]]
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot and what is needed to apply a plan that was made from it. `held`: classes of suspended tenants."""

    snapshot: decision.Snapshot
    class_ids: Mapping[decision.ClassKey, str]
    node_ids: Mapping[str, str]
    device_ids: Mapping[tuple[str, int], str]
    answers: Mapping[str, Answer]  # by class
    held: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LoadRows:
    """Read everything that a decision at `now_ms` may know. `base` is the policy where no operator chose."""

    now_ms: int
    base: decision.Policy

    def fetch(self, connection: Connection, /) -> Rows:
        """Return the rows."""
        fleet = read_fleet(connection)
        terms = read_terms(connection, self.now_ms, self.base)
        queued = live_rows.queued(connection)
        nominations = _nominations(connection, fleet)
        class_ids = {*queued, *(item.class_id for item in nominations)}
        return Rows(
            now_ms=self.now_ms,
            fleet=fleet,
            terms=terms,
            queued=queued,
            classes=live_rows.classes(connection, class_ids),
            running=live_rows.running(connection),
            nominations=nominations,
            preemptions=_preemptions(connection, self.now_ms),
            memory=_read_memory(connection, terms.policy),
        )


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """Read the rows and make one snapshot of them: the plain way, which the scheduler's index must agree with."""

    now_ms: int
    base: decision.Policy

    def fetch(self, connection: Connection, /) -> Loaded:
        """Return the snapshot and its keys."""
        return loaded_from(LoadRows(self.now_ms, self.base).fetch(connection))


@dataclass(frozen=True, slots=True)
class LoadTerms:
    """Read what operators set."""

    now_ms: int
    base: decision.Policy

    def fetch(self, connection: Connection, /) -> TermsRows:
        """Return it."""
        return read_terms(connection, self.now_ms, self.base)


@dataclass(frozen=True, slots=True)
class WorkRows:
    """What rows say of some jobs: as in `Rows`, of those jobs only."""

    queued: Mapping[str, Sequence[decision.PendingJob]]
    classes: Mapping[str, ClassRow]
    running: Sequence[tuple[decision.RunningJob, str]]


@dataclass(frozen=True, slots=True)
class LoadJobs:
    """Read the rows of named jobs. A job that is neither queued nor under an open lease is not among them."""

    job_ids: Sequence[str]
    known_classes: Container[str] = frozenset()

    def fetch(self, connection: Connection, /) -> WorkRows:
        """Return them, with the classes that are not known yet."""
        queued = live_rows.queued(connection, self.job_ids)
        classes = live_rows.classes(connection, [class_id for class_id in queued if class_id not in self.known_classes])
        return WorkRows(queued, classes, live_rows.running(connection, self.job_ids))


def loaded_from(rows: Rows) -> Loaded:
    """Return the snapshot that `rows` stand for."""
    terms, fleet = rows.terms, rows.fleet
    keys = {class_id: row.key_of(terms.tree) for class_id, row in rows.classes.items()}
    waiting = [class_id for class_id in rows.queued if rows.classes[class_id].tenant_id not in terms.suspended]
    snapshot = decision.from_rows(
        now_ms=rows.now_ms,
        policy=terms.policy,
        nodes=fleet.nodes,
        flavors=fleet.flavors,
        tree=terms.tree,
        running=[charged(job, project, terms.tree) for job, project in rows.running],
        classes=decision.order_classes(
            decision.JobClass(keys[class_id], rows.queued[class_id], rows.classes[class_id].grace_ms) for class_id in waiting
        ),
        capacity_reservations=terms.calendar.reservations,
        maintenance_windows=terms.calendar.maintenance,
        nominations=[replace(item.nomination, key=keys[item.class_id]) for item in rows.nominations],
        recent_preemptions=by_pool(rows.preemptions),
        past=rows.memory.past() if rows.memory is not None else None,
    )
    return Loaded(
        snapshot,
        {keys[class_id]: class_id for class_id in waiting},
        fleet.node_ids,
        fleet.device_ids,
        {class_id: row.answer for class_id, row in rows.classes.items()},
        sorted(rows.queued.keys() - set(waiting)),
    )


def charged(job: decision.RunningJob, project_id: str, tree: Tree) -> decision.RunningJob:
    """Return `job` charged to the leaf of this tree."""
    leaf = quota_tree.leaf(tree, job.tenant, project_id)
    return job if leaf == job.tenant else replace(job, tenant=leaf)


def by_pool(preemptions: Sequence[tuple[decision.Pool, int]]) -> dict[decision.Pool, list[int]]:
    """Return the times of preemptions by pool, oldest first."""
    found: dict[decision.Pool, list[int]] = {}
    for pool, at_ms in preemptions:
        found.setdefault(pool, []).append(at_ms)
    return found


def read_fleet(connection: Connection) -> FleetRows:
    """Return nodes, devices and flavors, in order of name."""
    rows = connection.execute(select(_flavor.c.name, _flavor.c.gpu_model, _flavor.c.mode, _flavor.c.milli_gpu).order_by(_flavor.c.name))
    flavors = {row.name: Flavor(row.name, row.gpu_model, DeviceMode(row.mode), row.milli_gpu) for row in rows}
    devices: dict[str, list[Any]] = {}
    columns = (
        _device.c.id,
        _device.c.node_id,
        _device.c.device_index,
        _device.c.gpu_model,
        _device.c.mode,
        _device.c.health,
        _device.c.island,
    )
    for row in connection.execute(select(*columns).order_by(_device.c.node_id, _device.c.device_index)):
        devices.setdefault(row.node_id, []).append(row)
    nodes, node_ids, device_ids = [], {}, {}
    for row in connection.execute(select(_node).where(_node.c.heartbeat_at_ms.is_not(None)).order_by(_node.c.name)):
        mine = devices.get(row.id, [])
        node_ids[row.name] = row.id
        device_ids.update({(row.name, device.device_index): device.id for device in mine})
        nodes.append(_node_of(row, mine))
    return FleetRows(marks.of_fleet(connection), nodes, flavors, node_ids, device_ids)


def _node_of(row: Any, devices: Sequence[Any]) -> decision.Node:
    return decision.Node(
        name=row.name,
        site=row.site,
        rack=row.rack or "",
        gpu_model=row.gpu_model,
        devices=tuple(
            decision.Device(item.device_index, item.gpu_model, DeviceMode(item.mode), DeviceHealth(item.health), island=item.island)
            for item in devices
        ),
        cpu_milli=row.cpu_milli,
        memory_bytes=row.memory_bytes,
        is_schedulable=not (row.is_cordoned or row.is_draining or row.is_lost or row.declared_gone_at_ms is not None),
        labels=json.loads(row.labels),
        taints=tuple(json.loads(row.taints)),
    )


def read_terms(connection: Connection, now_ms: int, base: decision.Policy) -> TermsRows:
    """Return what operators set, as it is in force at `now_ms`."""
    edges = (
        select(func.min(column)).where(column > now_ms).scalar_subquery() for column in (_quota.c.valid_from_ms, _quota.c.valid_until_ms)
    )
    ahead = [edge for edge in connection.execute(select(*edges)).one() if edge is not None]
    if calendar.has_rows(connection):
        ahead.append(now_ms + calendar.UNROLLED_AGAIN_MS)
    return TermsRows(
        mark=marks.of_terms(connection),
        policy=calendar.read_policy(connection, base),
        tree=quota_tree.read(connection, now_ms),
        changes_at_ms=min(ahead, default=None),
        calendar=calendar.read(connection, now_ms),
        suspended=frozenset(connection.execute(select(_tenant.c.id).where(_tenant.c.is_suspended.is_(True))).scalars()),
    )


def _nominations(connection: Connection, fleet: FleetRows) -> list[NominationRow]:
    rows = connection.execute(select(_nomination).order_by(_nomination.c.position)).all()
    if not rows:
        return []
    places = {device_id: place for place, device_id in fleet.device_ids.items()}
    names = {node_id: name for name, node_id in fleet.node_ids.items()}
    return [
        NominationRow(
            decision.Nomination(
                job=row.job_id,
                attempt=row.attempt,
                slices=tuple(
                    Slice(replica, *places[device_id], milli_gpu)
                    for replica, device_id, milli_gpu in json.loads(row.slices)
                    if device_id in places
                ),
                expires_ms=row.expires_at_ms,
                nodes=tuple(names.get(node_id, "") for node_id in json.loads(row.node_ids)),
                flavor=row.flavor,
                victims=tuple(json.loads(row.victims)),
                releases_ms=row.releases_at_ms,
            ),
            row.class_id,
        )
        for row in rows
    ]


def _preemptions(connection: Connection, now_ms: int) -> list[tuple[decision.Pool, int]]:
    """Return (pool, when) of the jobs that were told to leave for others within the last hour, oldest first."""
    causes = (LeaseEndCause.PREEMPTED.value, LeaseEndCause.RECLAIMED.value)
    recent = and_(_lease.c.stop_requested_at_ms > now_ms - decision.HOUR_MS, _lease.c.stop_cause.in_(causes))
    models = {row.name: row.gpu_model for row in connection.execute(select(_flavor.c.name, _flavor.c.gpu_model))}
    columns = (_lease.c.id, _lease.c.flavor, _lease.c.stop_requested_at_ms)
    rows = connection.execute(select(*columns).where(recent).order_by(_lease.c.stop_requested_at_ms, _lease.c.id)).all()
    sites: dict[str, str] = {}
    for some in in_lists([row.id for row in rows]):
        heads = and_(_part.c.lease_id.in_(some), _part.c.role == "head")
        joined = _part.join(_node, _node.c.id == _part.c.node_id)
        sites.update(
            {row.lease_id: row.site for row in connection.execute(select(_part.c.lease_id, _node.c.site).select_from(joined).where(heads))}
        )
    return [((sites[row.id], models.get(row.flavor, "")), row.stop_requested_at_ms) for row in rows]


def _read_memory(connection: Connection, policy: decision.Policy) -> Memory | None:
    """Return what fair sharing remembers; None when it does not look back, or remembers nothing by this half-life."""
    if not policy.fair_sharing or not policy.fair_share_half_life_ms:
        return None
    row = connection.execute(select(_memory).where(_memory.c.name == calendar.POLICY_NAME)).first()
    if row is None or row.half_life_ms != policy.fair_share_half_life_ms:
        return None
    return Memory(row.half_life_ms, row.observed_at_ms, {node: dict(sums) for node, sums in json.loads(row.sums).items()})
