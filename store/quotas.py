"""Quota rows: dated, never edited; what is in force and what is held against it.

Owns the rows of `quota`. A new row covers an old one where both are valid: the newest start wins, so cutting or raising is one insert.
Cutting below what is held is legal and stops nothing. Called by api; the scheduler reads quotas through store/scheduling.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select

from domain.slices import MILLI_GPU_PER_DEVICE
from domain.states import JobState
from store import shapes
from store.errors import InvalidError, NotFoundError
from store.tables import Device, Flavor, Job, JobClass, Lease, LeaseNode, Project, Quota, QuotaNode, Tenant

Amounts = dict[tuple[str, str], int]  # by tenant or project, and resource, in the resource's unit

RESOURCES_BESIDE_GPUS = ("cpu", "memory")

_quota = Quota.__table__  # type: ignore[attr-defined]
_place = QuotaNode.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_project = Project.__table__  # type: ignore[attr-defined]
_lease = Lease.__table__  # type: ignore[attr-defined]
_flavor = Flavor.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_part = LeaseNode.__table__  # type: ignore[attr-defined]
_job = Job.__table__  # type: ignore[attr-defined]
_class = JobClass.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class QuotaView:
    """Quota in force of a tenant or project for one resource, what is held and what is queued, in the resource's unit."""

    tenant: str
    project: str | None
    resource: str
    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None
    held: int
    queued: int
    valid_from_ms: int
    valid_until_ms: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetQuota:
    """One dated row for a tenant, or for a project of it. `nominal` and limits in milli-GPU, milli-CPU or bytes by resource."""

    id: str
    tenant: str
    project: str | None
    resource: str
    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None
    valid_from_ms: int
    valid_until_ms: int | None
    now_ms: int

    def execute(self, connection: Connection, /) -> QuotaView:
        """Return the row as a view with warnings; NotFoundError for the tenant or project, InvalidError for the resource or window."""
        tenant_id, node_id, parent_id = self._place(connection)
        known = _models(connection)
        if self.resource not in (*RESOURCES_BESIDE_GPUS, *known):
            names = [*known, *RESOURCES_BESIDE_GPUS]
            message = f"resource: {self.resource!r} is not one of {', '.join(names)}"
            raise InvalidError("unknown_resource", message, field="resource", limit=names)
        if self.valid_until_ms is not None and self.valid_until_ms <= self.valid_from_ms:
            raise InvalidError("empty_window", "valid_until: must lie after valid_from", field="valid_until", limit_ms=self.valid_from_ms)
        if self.borrowing_limit is not None and parent_id is None:
            raise InvalidError(
                "nobody_to_borrow_from", "borrowing_limit: this tenant has no cohort to borrow from", field="borrowing_limit"
            )
        values = {
            "id": self.id,
            "quota_node_id": node_id,
            "resource": self.resource,
            "nominal": self.nominal,
            "borrowing_limit": self.borrowing_limit,
            "lending_limit": self.lending_limit,
            "valid_from_ms": self.valid_from_ms,
            "valid_until_ms": self.valid_until_ms,
            "created_at_ms": self.now_ms,
        }
        connection.execute(insert(_quota), values)
        held = _held(connection, tenant_id).get((node_id, self.resource), 0)
        return QuotaView(
            self.tenant, self.project, self.resource, self.nominal, self.borrowing_limit, self.lending_limit, held, 0, self.valid_from_ms,
            self.valid_until_ms, self._warnings(connection, held),
        )  # fmt: skip

    def _place(self, connection: Connection) -> tuple[str, str, str | None]:
        """Return the tenant, the node that the quota is for, and the node above it."""
        statement = select(_tenant.c.id, _place.c.parent_id).join(_place, _place.c.id == _tenant.c.id).where(_tenant.c.name == self.tenant)
        row = connection.execute(statement).first()
        if row is None:
            raise NotFoundError("tenant_not_found", f"there is no tenant {self.tenant!r}", field="tenant")
        if self.project is None:
            return row.id, row.id, row.parent_id
        mine = and_(_project.c.tenant_id == row.id, _project.c.name == self.project)
        project_id = connection.execute(select(_project.c.id).where(mine)).scalar_one_or_none()
        if project_id is None:
            raise NotFoundError("project_not_found", f"tenant {self.tenant!r} has no project {self.project!r}", field="project")
        return row.id, project_id, row.id

    def _warnings(self, connection: Connection, held: int) -> tuple[str, ...]:
        warnings = []
        if held > self.nominal:
            warnings.append(f"{held} is held now, more than the new nominal {self.nominal}; nothing is stopped by that")
        if self.resource not in RESOURCES_BESIDE_GPUS:
            capacity = _capacity(connection, self.resource)
            rows = _newest(connection, self.now_ms, None).values()
            total = sum(row.nominal for row in rows if row.resource == self.resource and row.project is None)
            if total > capacity:
                warnings.append(f"nominal quotas of {self.resource} add up to {total} milli-GPU, the fleet has {capacity}")
        return tuple(warnings)


@dataclass(frozen=True, slots=True)
class QuotasInForce:
    """Quotas at `now_ms`, of one tenant or of all, with what is held and queued against them."""

    now_ms: int
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[QuotaView, ...]:
        """Return them in order of tenant, project and resource."""
        return tuple(_in_force(connection, self.now_ms, self.tenant_id))


def _in_force(connection: Connection, now_ms: int, tenant_id: str | None = None) -> list[QuotaView]:
    held, queued = _held(connection, tenant_id), _queued(connection, tenant_id)
    views = [
        QuotaView(
            row.tenant,
            row.project,
            row.resource,
            row.nominal,
            row.borrowing_limit,
            row.lending_limit,
            held.get(key, 0),
            queued.get(key, 0),
            row.valid_from_ms,
            row.valid_until_ms,
        )
        for key, row in _newest(connection, now_ms, tenant_id).items()
    ]
    return sorted(views, key=lambda view: (view.tenant, view.project or "", view.resource))


def _newest(connection: Connection, now_ms: int, tenant_id: str | None) -> dict[tuple[str, str], Any]:
    """Return the row in force by (tenant or project, resource): of those that cover the moment, the newest."""
    valid = and_(_quota.c.valid_from_ms <= now_ms, or_(_quota.c.valid_until_ms.is_(None), _quota.c.valid_until_ms > now_ms))
    joined = _quota.outerjoin(_project, _project.c.id == _quota.c.quota_node_id)
    joined = joined.join(_tenant, _tenant.c.id == func.coalesce(_project.c.tenant_id, _quota.c.quota_node_id))
    statement = select(_quota, _tenant.c.name.label("tenant"), _project.c.name.label("project")).select_from(joined).where(valid)
    if tenant_id is not None:
        statement = statement.where(_tenant.c.id == tenant_id)
    ordered = statement.order_by(_quota.c.valid_from_ms, _quota.c.created_at_ms, _quota.c.id)
    return {(row.quota_node_id, row.resource): row for row in connection.execute(ordered)}


def _held(connection: Connection, tenant_id: str | None) -> Amounts:
    """Return what open leases hold, of one tenant or of all. SQL counts and Python adds, so that no sum can overflow."""
    is_open = and_(_lease.c.released_at_ms.is_(None), *([_lease.c.tenant_id == tenant_id] if tenant_id is not None else []))
    columns = (_lease.c.tenant_id, _lease.c.project_id, _flavor.c.gpu_model, _lease.c.milli_gpu)
    gpus = select(*columns, func.count()).select_from(_lease.join(_flavor, _flavor.c.name == _lease.c.flavor)).where(is_open)
    held: Amounts = {}
    for *owners, model, milli_gpu, count in connection.execute(gpus.group_by(*columns)):
        _add(held, owners, model, milli_gpu * count)
    columns = (_lease.c.tenant_id, _lease.c.project_id, _part.c.cpu_milli, _part.c.memory_bytes)
    parts = select(*columns, func.count()).select_from(_lease.join(_part, _part.c.lease_id == _lease.c.id)).where(is_open)
    for *owners, cpu_milli, memory_bytes, count in connection.execute(parts.group_by(*columns)):
        _add(held, owners, "cpu", cpu_milli * count)
        _add(held, owners, "memory", memory_bytes * count)
    return held


def _queued(connection: Connection, tenant_id: str | None) -> Amounts:
    """Return what queued jobs ask for, likewise; a job with alternatives counts for its first choice."""
    mine = [_job.c.tenant_id == tenant_id] if tenant_id is not None else []
    waiting = select(_job.c.class_id, func.count().label("jobs")).where(_job.c.state == JobState.QUEUED.value, *mine)
    counted = waiting.group_by(_job.c.class_id).subquery()
    columns = (_class.c.tenant_id, _class.c.project_id, _class.c.shape, counted.c.jobs)
    models = {row.name: row.gpu_model for row in connection.execute(select(_flavor.c.name, _flavor.c.gpu_model))}
    queued: Amounts = {}
    for *owners, text, count in connection.execute(select(*columns).join(counted, counted.c.class_id == _class.c.id)):
        shape = shapes.shape_of(text)
        if shape.flavors:
            _add(queued, owners, models.get(shape.flavors[0], shape.flavors[0]), shape.milli_gpu * count)
        _add(queued, owners, "cpu", shape.cpu_milli_per_replica * shape.replicas * count)
        _add(queued, owners, "memory", shape.memory_bytes_per_replica * shape.replicas * count)
    return queued


def _add(amounts: Amounts, owners: Sequence[str], resource: str, amount: int) -> None:
    for owner in owners:
        amounts[owner, resource] = amounts.get((owner, resource), 0) + amount


def _models(connection: Connection) -> list[str]:
    return list(connection.execute(select(_flavor.c.gpu_model).distinct().order_by(_flavor.c.gpu_model)).scalars())


def _capacity(connection: Connection, model: str) -> int:
    usable = and_(_device.c.gpu_model == model, _device.c.health == "healthy")
    return int(connection.execute(select(func.count()).select_from(_device).where(usable)).scalar_one()) * MILLI_GPU_PER_DEVICE
