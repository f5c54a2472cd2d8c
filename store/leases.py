"""Leases after they were bound: stopped, ended, released. Only the leading scheduler writes them.

Owns the changes of `lease`, `lease_node`, `device_claim` and `attempt`, and the scheduler's changes of `job`; their first rows are made by
store/plans.py. Decides nothing: which change follows from what was seen is scheduler/service/transitions.py. Every command carries the
leader's fence. A change whose job moved on is dropped alone and whole, its observations stay open: what follows from them depends on what
the job is now, so the next cycle chooses again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import ClauseElement, Connection, and_, bindparam, delete, select, update

from store import hot, tables
from store.in_lists import in_lists
from store.jobs import canonical
from store.leader import Fence

OPEN_LEASES_MAXIMUM = 200_000

_job = tables.Job.__table__  # type: ignore[attr-defined]
_class = tables.JobClass.__table__  # type: ignore[attr-defined]
_lease = tables.Lease.__table__  # type: ignore[attr-defined]
_part = tables.LeaseNode.__table__  # type: ignore[attr-defined]
_claim = tables.DeviceClaim.__table__  # type: ignore[attr-defined]
_attempt = tables.Attempt.__table__  # type: ignore[attr-defined]
_event = tables.Event.__table__  # type: ignore[attr-defined]
_node = tables.Node.__table__  # type: ignore[attr-defined]
_observation = tables.Observation.__table__  # type: ignore[attr-defined]

_insert_event = hot.insert_into(_event, ("at_ms", "kind", "tenant_id", "job_id", "lease_id", "data"))
_mark_applied = hot.HotStatement(
    ("at", "number"), lambda _: update(_observation).where(_observation.c.id == bindparam("number")).values(applied_at_ms=bindparam("at"))
)
_mark_gone = hot.HotStatement(
    ("gone", "of_lease", "of_node"),
    lambda _: (
        update(_part)
        .where(_part.c.lease_id == bindparam("of_lease"), _part.c.node_id == bindparam("of_node"))
        .values(is_gone=bindparam("gone"))
    ),
)
_drop_claims = hot.HotStatement(("of_lease",), lambda _: delete(_claim).where(_claim.c.lease_id == bindparam("of_lease")))


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
    """Apply changes in order. An observation that was applied already, or a job that moved on, makes its whole change void.

    A command takes a handful of statements however many changes it has: this is what most of the scheduler's writing is.
    """

    fence: Fence
    changes: Sequence[Change]
    now_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many changes were applied."""
        now_ms = self.fence.stamp(connection, self.now_ms)
        leases = _locked(connection, [change.lease_id for change in self.changes])
        fresh = _fresh(connection, [number for change in self.changes for number in change.observation_ids])
        versions = {lease.job_id: lease.version for lease in leases.values()}
        writes = _Writes(now_ms)
        for change in self.changes:
            lease = leases[change.lease_id]
            if change.job and versions[lease.job_id] != change.job_version:
                continue
            if not fresh.issuperset(change.observation_ids):
                continue
            fresh.difference_update(change.observation_ids)
            versions[lease.job_id] += 1 if change.job else 0
            writes.add(change, lease)
        writes.run(connection)
        return writes.count


def _locked(connection: Connection, lease_ids: Sequence[str]) -> dict[str, Any]:
    """Return (lease, tenant, job, attempt, version of the job) by lease. Locked, so that a cancel either came before and is seen, or comes
    after and finds the new version.
    """
    columns = (_lease.c.id, _lease.c.tenant_id, _lease.c.job_id, _lease.c.attempt, _job.c.version)
    joined = _lease.join(_job, _job.c.id == _lease.c.job_id)
    found = {}
    for some in in_lists(sorted(set(lease_ids))):
        statement = select(*columns).select_from(joined).where(_lease.c.id.in_(some)).order_by(_job.c.id, _lease.c.id)
        found.update({row.id: row for row in connection.execute(statement.with_for_update(of=_job, key_share=True))})
    return found


def _fresh(connection: Connection, observation_ids: Sequence[int]) -> set[int]:
    """Return those of these observations that were not applied yet."""
    found: set[int] = set()
    for some in in_lists(sorted(set(observation_ids))):
        named = and_(_observation.c.id.in_(some), _observation.c.applied_at_ms.is_(None))
        found.update(connection.execute(select(_observation.c.id).where(named)).scalars())
    return found


class _Writes:
    """The rows that changes write, collected by statement. Changes of one command concern different leases: only events have an order."""

    def __init__(self, now_ms: int) -> None:
        self.count = 0
        self._now_ms = now_ms
        self._rows: dict[hot.HotStatement, list[tuple[object, ...]]] = {}
        self._events: list[tuple[object, ...]] = []

    def add(self, change: Change, lease: Any) -> None:
        """Take one change in."""
        self.count += 1
        for number in change.observation_ids:
            self._row(_mark_applied, (self._now_ms, number))
        self._update("lease", change.lease, (change.lease_id,))
        self._update("attempt", change.attempt, (lease.job_id, lease.attempt))
        if change.job:
            self._update("job", {**change.job, "version": change.job_version + 1}, (lease.job_id,))
        for node_id in change.gone_node_ids:
            self._row(_mark_gone, (True, change.lease_id, node_id))
        if change.is_released:
            self._row(_drop_claims, (change.lease_id,))
        for kind, data in change.events:
            self._events.append((self._now_ms, kind, lease.tenant_id, lease.job_id, change.lease_id, canonical(data)))

    def _update(self, table: str, values: Mapping[str, object], key: tuple[object, ...]) -> None:
        if values:
            statement, names = _update_of(table, frozenset(values))
            self._row(statement, (*(values[name] for name in names), *key))

    def _row(self, statement: hot.HotStatement, row: tuple[object, ...]) -> None:
        self._rows.setdefault(statement, []).append(row)

    def run(self, connection: Connection) -> None:
        """Write everything."""
        for statement, rows in self._rows.items():
            statement.run_many(connection, rows)
        if self._events:
            _insert_event.run_many(connection, self._events)


@cache
def _update_of(table: str, names: frozenset[str]) -> tuple[hot.HotStatement, tuple[str, ...]]:
    """Return the update of these columns of one row, and the order in which it takes them, before the row's key."""
    target, keys = {
        "lease": (_lease, ("id",)),
        "job": (_job, ("id",)),
        "attempt": (_attempt, ("job_id", "number")),
    }[table]
    ordered = tuple(column.name for column in target.columns if column.name in names)
    if len(ordered) != len(names):
        raise ValueError(f"{table} has no column {sorted(names - set(ordered))}")

    def build(_: str) -> ClauseElement:
        values: dict[str, Any] = {name: bindparam(f"to_{name}") for name in ordered}
        found: ClauseElement = update(target).where(*(target.c[key] == bindparam(f"of_{key}") for key in keys)).values(values)
        return found

    return hot.HotStatement([*(f"to_{name}" for name in ordered), *(f"of_{key}" for key in keys)], build), ordered
