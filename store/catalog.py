"""What a submit is checked against: flavors, tiers, the largest nodes, a tenant's projects and the most that its quota could ever give.

Owns no rows and no writes. The API keeps these values for a moment (api/catalog.py) and refuses only on a fresh one. A ceiling is what
the quota tree would give an otherwise empty fleet, borrowing included; it is a bound for refusing the impossible, not a grant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, or_, select

from store.tables import Device, Flavor, Node, Project, Quota, QuotaNode, Tier

COHORT_DEPTH_MAXIMUM = 16

_flavor = Flavor.__table__  # type: ignore[attr-defined]
_tier = Tier.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_project = Project.__table__  # type: ignore[attr-defined]
_quota = Quota.__table__  # type: ignore[attr-defined]
_place = QuotaNode.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class FlavorTerms:
    """A flavor that can be asked for."""

    name: str
    gpu_model: str
    mode: str
    milli_gpu: int


@dataclass(frozen=True, slots=True)
class TierTerms:
    """What a tier allows."""

    name: str
    default_limit_ms: int
    maximum_limit_ms: int
    priority_minimum: int
    priority_maximum: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class NodeMaxima:
    """The largest node of a GPU model (or of the whole fleet): devices, CPU and memory, each on some node."""

    devices: int
    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class FleetCatalog:
    """Flavors and tiers by name; the largest nodes by GPU model, and of the whole fleet under None."""

    flavors: Mapping[str, FlavorTerms]
    tiers: Mapping[str, TierTerms]
    maxima: Mapping[str | None, NodeMaxima]


@dataclass(frozen=True, slots=True)
class TenantCatalog:
    """A tenant's project identifiers by name, and by resource the most that its quota could ever give."""

    projects: Mapping[str, str]
    ceilings: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Limits:
    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None


@dataclass(frozen=True, slots=True)
class ReadFleetCatalog:
    """The fleet's part of the catalog."""

    def fetch(self, connection: Connection, /) -> FleetCatalog:
        """Return flavors, tiers and the largest nodes."""
        flavors = connection.execute(
            select(_flavor.c.name, _flavor.c.gpu_model, _flavor.c.mode, _flavor.c.milli_gpu).order_by(_flavor.c.name)
        )
        columns = [_tier.c[name] for name in TierTerms.__dataclass_fields__]
        tiers = connection.execute(select(*columns).order_by(_tier.c.name))
        return FleetCatalog(
            flavors={row[0]: FlavorTerms(*row) for row in flavors},
            tiers={row[0]: TierTerms(*row) for row in tiers},
            maxima=self._maxima(connection),
        )

    @staticmethod
    def _maxima(connection: Connection) -> dict[str | None, NodeMaxima]:
        counted = (
            select(_device.c.node_id, _device.c.gpu_model, func.count().label("devices"))
            .group_by(_device.c.node_id, _device.c.gpu_model)
            .subquery()
        )
        statement = (
            select(counted.c.gpu_model, func.max(counted.c.devices), func.max(_node.c.cpu_milli), func.max(_node.c.memory_bytes))
            .select_from(counted.join(_node, _node.c.id == counted.c.node_id))
            .group_by(counted.c.gpu_model)
        )
        found: dict[str | None, NodeMaxima] = {row[0]: NodeMaxima(*row[1:]) for row in connection.execute(statement)}
        cpu_milli, memory_bytes = connection.execute(select(func.max(_node.c.cpu_milli), func.max(_node.c.memory_bytes))).one()
        if cpu_milli:
            found[None] = NodeMaxima(max((item.devices for item in found.values()), default=0), cpu_milli, memory_bytes)
        return found


@dataclass(frozen=True, slots=True)
class ReadTenantCatalog:
    """A tenant's part of the catalog, with the quota that is in force at `now_ms`."""

    tenant_id: str
    now_ms: int

    def fetch(self, connection: Connection, /) -> TenantCatalog:
        """Return the tenant's projects and ceilings."""
        statement = select(_project.c.name, _project.c.id).where(_project.c.tenant_id == self.tenant_id)
        projects = {row[0]: row[1] for row in connection.execute(statement)}
        parents = dict(self._tree(connection))
        limits = self._limits(connection, list(parents))
        resources = {resource for _, resource in limits}
        ceilings = {resource: _ceiling(self.tenant_id, resource, parents, limits) for resource in resources}
        return TenantCatalog(projects, {resource: amount for resource, amount in ceilings.items() if amount is not None})

    def _tree(self, connection: Connection) -> Sequence[tuple[str, str | None]]:
        own = connection.execute(select(_place.c.id, _place.c.parent_id).where(_place.c.id == self.tenant_id)).all()
        if not own or own[0].parent_id is None:
            return [(row.id, row.parent_id) for row in own]
        statement = select(_place.c.id, _place.c.parent_id).where(_place.c.kind != "project")
        return [(row.id, row.parent_id) for row in connection.execute(statement)]

    def _limits(self, connection: Connection, node_ids: Sequence[str]) -> dict[tuple[str, str], _Limits]:
        in_force = and_(
            _quota.c.valid_from_ms <= self.now_ms, or_(_quota.c.valid_until_ms.is_(None), _quota.c.valid_until_ms > self.now_ms)
        )
        columns = (_quota.c.quota_node_id, _quota.c.resource, _quota.c.nominal, _quota.c.borrowing_limit, _quota.c.lending_limit)
        statement = select(*columns).where(in_force).order_by(_quota.c.valid_from_ms, _quota.c.created_at_ms, _quota.c.id)
        if len(node_ids) == 1:
            statement = statement.where(_quota.c.quota_node_id == node_ids[0])
        return {(row[0], row[1]): _Limits(*row[2:]) for row in connection.execute(statement)}


def _ceiling(node_id: str, resource: str, parents: Mapping[str, str | None], limits: Mapping[tuple[str, str], _Limits]) -> int | None:
    """Return the most that the node could hold in an empty tree, None when nobody ever gave it this resource."""
    children: dict[str, list[str]] = {}
    for child, parent in parents.items():
        if parent is not None:
            children.setdefault(parent, []).append(child)

    def subtree(node: str, depth: int) -> int:
        own = limits.get((node, resource))
        below = children.get(node, []) if depth < COHORT_DEPTH_MAXIMUM else []
        return (own.nominal if own else 0) + sum(lent(child, depth + 1) for child in below)

    def lent(node: str, depth: int) -> int:
        own = limits.get((node, resource))
        whole = subtree(node, depth)
        return whole if own is None or own.lending_limit is None else min(whole, own.lending_limit)

    def potential(node: str, depth: int) -> int:
        own = limits.get((node, resource))
        whole = subtree(node, 0)
        parent = parents.get(node)
        if parent is None or depth >= COHORT_DEPTH_MAXIMUM:
            return whole
        kept = max(0, whole - own.lending_limit) if own is not None and own.lending_limit is not None else 0
        reachable = kept + potential(parent, depth + 1)
        return reachable if own is None or own.borrowing_limit is None else min(whole + own.borrowing_limit, reachable)

    return potential(node_id, 0) if (node_id, resource) in limits else None
