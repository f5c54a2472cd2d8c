"""Quota rows: dated, never edited; what is in force and what is held against it.

Owns the rows of `quota`. A new row covers an old one where both are valid: the newest start wins, so cutting or raising is one insert.
Cutting below what is held is legal and stops nothing. Called by api; the scheduler reads quotas through store/scheduling.py. What is held
is summed up in quota_usage.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, exists, func, insert, or_, select

from store import cohorts, operator_events, quota_usage
from store.errors import InvalidError, NotFoundError
from store.tables import Project, Quota, QuotaNode, Tenant

RESOURCES_BESIDE_GPUS = ("cpu", "memory")

_quota = Quota.__table__  # type: ignore[attr-defined]
_place = QuotaNode.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_project = Project.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class QuotaView:
    """Quota in force of a tenant, project or cohort for one resource, what is held and what is queued, in the resource's unit."""

    tenant: str | None
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
    cohort: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the tree that has quotas. `tenant_id` is None for a cohort."""

    id: str
    parent_id: str | None
    tenant_id: str | None


@dataclass(frozen=True, slots=True)
class SetQuota:
    """One dated row for a tenant, a project of it, or a cohort. `nominal` and limits in milli-GPU, milli-CPU or bytes by resource."""

    id: str
    tenant: str | None
    project: str | None
    resource: str
    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None
    valid_from_ms: int
    valid_until_ms: int | None
    now_ms: int
    cohort: str | None = None
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> QuotaView:
        """Return the row as a view with warnings; refuses as `apply` does."""
        place = self.apply(connection)
        held = self._held(connection, place)
        return QuotaView(
            self.tenant, self.project, self.resource, self.nominal, self.borrowing_limit, self.lending_limit, held, 0, self.valid_from_ms,
            self.valid_until_ms, self._warnings(connection, held), self.cohort,
        )  # fmt: skip

    def apply(self, connection: Connection) -> Place:
        """Add the row; NotFoundError for the node, InvalidError for resource, window or limits."""
        place = find_place(connection, self.tenant, self.project, self.cohort)
        self._check(connection, place)
        values = {
            "resource": self.resource,
            "nominal": self.nominal,
            "borrowing_limit": self.borrowing_limit,
            "lending_limit": self.lending_limit,
            "valid_from_ms": self.valid_from_ms,
            "valid_until_ms": self.valid_until_ms,
        }
        connection.execute(insert(_quota), {"id": self.id, "quota_node_id": place.id, **values, "created_at_ms": self.now_ms})
        named = {"tenant": self.tenant, "project": self.project, "cohort": self.cohort}
        operator_events.record(
            connection, operator_events.QUOTA_CHANGED, {name: value for name, value in named.items() if value is not None} | values,
            now_ms=self.now_ms, user_id=self.user_id, tenant_id=place.tenant_id,
        )  # fmt: skip
        return place

    def _check(self, connection: Connection, place: Place) -> None:
        known = quota_usage.models(connection)
        if self.resource not in (*RESOURCES_BESIDE_GPUS, *known):
            names = [*known, *RESOURCES_BESIDE_GPUS]
            message = f"resource: {self.resource!r} is not one of {', '.join(names)}"
            raise InvalidError("unknown_resource", message, field="resource", limit=names)
        if self.valid_until_ms is not None and self.valid_until_ms <= self.valid_from_ms:
            raise InvalidError("empty_window", "valid_until: must lie after valid_from", field="valid_until", limit_ms=self.valid_from_ms)
        if self.borrowing_limit is not None and place.parent_id is None:
            kind = "cohort has no cohort above" if place.tenant_id is None else "tenant has no cohort"
            message = f"borrowing_limit: this {kind} to borrow from"
            raise InvalidError("nobody_to_borrow_from", message, field="borrowing_limit")
        if self.lending_limit is not None and self.lending_limit > self.nominal and not _lends_what_others_own(connection, place):
            message = f"lending_limit: {self.lending_limit} is more than the nominal {self.nominal}"
            raise InvalidError("lending_over_nominal", message, field="lending_limit", limit=self.nominal)

    def _held(self, connection: Connection, place: Place) -> int:
        if place.tenant_id is None:
            return quota_usage.charged_tree(connection, self.now_ms).usage(place.id, self.resource)
        return quota_usage.held(connection, place.tenant_id).get((place.id, self.resource), 0)

    def _warnings(self, connection: Connection, held: int) -> tuple[str, ...]:
        warnings = []
        if held > self.nominal and self.cohort is None:  # what a cohort holds is its members', who have quotas of their own
            warnings.append(f"{held} is held now, more than the new nominal {self.nominal}; nothing is stopped by that")
        if self.resource not in RESOURCES_BESIDE_GPUS:
            capacity = quota_usage.capacity(connection, self.resource)
            total = _owned(connection, self.resource, self.now_ms)
            if total > capacity:
                warnings.append(f"nominal quotas of {self.resource} add up to {total} milli-GPU, the fleet has {capacity}")
        return tuple(warnings)


def find_place(connection: Connection, tenant: str | None, project: str | None, cohort: str | None) -> Place:
    """Return the node of the tree that a cohort, or a tenant, or a project of a tenant has; NotFoundError."""
    if tenant is None:
        found = cohorts.find(connection, cohort or "")
        parent_id = connection.execute(select(_place.c.parent_id).where(_place.c.id == found.id)).scalar_one()
        return Place(found.id, parent_id, None)
    statement = select(_tenant.c.id, _place.c.parent_id).join(_place, _place.c.id == _tenant.c.id).where(_tenant.c.name == tenant)
    row = connection.execute(statement).first()
    if row is None:
        raise NotFoundError("tenant_not_found", f"there is no tenant {tenant!r}", field="tenant")
    if project is None:
        return Place(row.id, row.parent_id, row.id)
    mine = and_(_project.c.tenant_id == row.id, _project.c.name == project)
    project_id = connection.execute(select(_project.c.id).where(mine)).scalar_one_or_none()
    if project_id is None:
        raise NotFoundError("project_not_found", f"tenant {tenant!r} has no project {project!r}", field="project")
    return Place(project_id, row.id, row.id)


def in_force_of(connection: Connection, node_id: str, now_ms: int) -> dict[str, Any]:
    """Return the rows in force of one node of the tree, by resource."""
    valid = and_(_quota.c.valid_from_ms <= now_ms, or_(_quota.c.valid_until_ms.is_(None), _quota.c.valid_until_ms > now_ms))
    statement = select(_quota).where(valid, _quota.c.quota_node_id == node_id)
    ordered = statement.order_by(_quota.c.valid_from_ms, _quota.c.created_at_ms, _quota.c.id)
    return {row.resource: row for row in connection.execute(ordered)}


def _lends_what_others_own(connection: Connection, place: Place) -> bool:
    """Tell whether others below a node lend to it: a cohort, or a tenant whose quota is divided among projects."""
    if place.tenant_id is None:
        return True
    below = exists().where(_place.c.parent_id == place.id, _quota.c.quota_node_id == _place.c.id)
    return bool(connection.execute(select(below)).scalar_one())


@dataclass(frozen=True, slots=True)
class QuotasInForce:
    """Quotas at `now_ms`, of one tenant or of all, with what is held and queued against them."""

    now_ms: int
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[QuotaView, ...]:
        """Return them in order of tenant, project and resource."""
        return tuple(_in_force(connection, self.now_ms, self.tenant_id))


def _in_force(connection: Connection, now_ms: int, tenant_id: str | None = None) -> list[QuotaView]:
    held, queued = quota_usage.held(connection, tenant_id), quota_usage.queued(connection, tenant_id)
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
    return sorted(views, key=lambda view: (view.tenant or "", view.project or "", view.resource))


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


def _owned(connection: Connection, resource: str, now_ms: int) -> int:
    """Return the sum of what tenants and cohorts own of a resource at a moment. What projects own is their tenants'."""
    valid = and_(_quota.c.valid_from_ms <= now_ms, or_(_quota.c.valid_until_ms.is_(None), _quota.c.valid_until_ms > now_ms))
    statement = (
        select(_quota.c.quota_node_id, _quota.c.nominal)
        .join(_place, _place.c.id == _quota.c.quota_node_id)
        .where(valid, _quota.c.resource == resource, _place.c.kind != "project")
        .order_by(_quota.c.valid_from_ms, _quota.c.created_at_ms, _quota.c.id)
    )
    return sum({row.quota_node_id: row.nominal for row in connection.execute(statement)}.values())
