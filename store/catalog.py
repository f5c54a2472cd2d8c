"""What a submit is checked against: flavors, tiers, the largest nodes, a tenant's projects and the most that its quota could ever give.

Owns no rows and no writes. The API keeps these values for a moment (api/catalog.py) and refuses only on a fresh one. A ceiling is what
the quota tree would give an otherwise empty fleet, borrowing included; it is a bound for refusing the impossible, not a grant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from quotas.tree import Tree
from store import quota_tree
from store.tables import Device, Flavor, Node, Project, QuotaNode, Tier

_flavor = Flavor.__table__  # type: ignore[attr-defined]
_tier = Tier.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_simulated = select(_device.c.gpu_model).where(_device.c.is_simulated.is_(True)).distinct()
_project = Project.__table__  # type: ignore[attr-defined]
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
    is_preemptible: bool


@dataclass(frozen=True, slots=True)
class NodeMaxima:
    """The largest node of a GPU model (or of the whole fleet): devices, CPU and memory, each on some node."""

    devices: int
    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class NodeKind:
    """Nodes that are alike but for their size: where they are, what they carry, which GPUs they have, and how large the largest is."""

    site: str
    labels: Mapping[str, str]
    taints: frozenset[str]
    gpu_model: str | None
    maxima: NodeMaxima


def maxima_of(kinds: Iterable[NodeKind], gpu_model: str | None) -> NodeMaxima | None:
    """Return the largest node of a GPU model (None: of any); None where none has reported yet."""
    sizes = [kind.maxima for kind in kinds if gpu_model in (None, kind.gpu_model) and kind.maxima.cpu_milli]
    if not sizes:
        return None
    return NodeMaxima(max(size.devices for size in sizes), max(size.cpu_milli for size in sizes), max(size.memory_bytes for size in sizes))


@dataclass(frozen=True, slots=True)
class FleetCatalog:
    """Flavors and tiers by name; the largest nodes by GPU model, and of the whole fleet under None; the kinds of nodes."""

    flavors: Mapping[str, FlavorTerms]
    tiers: Mapping[str, TierTerms]
    maxima: Mapping[str | None, NodeMaxima]
    kinds: tuple[NodeKind, ...] = ()
    simulated_models: frozenset[str] = frozenset()  # of which some device is simulated


@dataclass(frozen=True, slots=True)
class TenantCatalog:
    """A tenant's project identifiers by name, and by resource the most that its quota, or that of a project of it, could ever give."""

    projects: Mapping[str, str]
    ceilings: Mapping[str, int]


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
        kinds = self._kinds(connection)
        models = {kind.gpu_model for kind in kinds} | {None}
        largest = {model: maxima_of(kinds, model) for model in models}
        return FleetCatalog(
            flavors={row[0]: FlavorTerms(*row) for row in flavors},
            tiers={row[0]: TierTerms(*row) for row in tiers},
            maxima={model: size for model, size in largest.items() if size is not None},
            kinds=kinds,
            simulated_models=frozenset(connection.execute(_simulated).scalars()),
        )

    @staticmethod
    def _kinds(connection: Connection) -> tuple[NodeKind, ...]:
        counted = (
            select(_device.c.node_id, _device.c.gpu_model, func.count().label("devices"))
            .group_by(_device.c.node_id, _device.c.gpu_model)
            .subquery()
        )
        alike = (_node.c.site, _node.c.labels, _node.c.taints, counted.c.gpu_model)
        largest = (func.coalesce(func.max(counted.c.devices), 0), func.max(_node.c.cpu_milli), func.max(_node.c.memory_bytes))
        statement = (
            select(*alike, *largest)
            .select_from(_node.outerjoin(counted, counted.c.node_id == _node.c.id))
            .group_by(*alike)
            .order_by(*alike)
        )
        return tuple(
            NodeKind(row[0], json.loads(row[1]), frozenset(json.loads(row[2])), row[3], NodeMaxima(*row[4:]))
            for row in connection.execute(statement)
        )


@dataclass(frozen=True, slots=True)
class ReadTenantCatalog:
    """A tenant's part of the catalog, with the quota that is in force at `now_ms`."""

    tenant_id: str
    now_ms: int

    def fetch(self, connection: Connection, /) -> TenantCatalog:
        """Return the tenant's projects and ceilings."""
        statement = select(_project.c.name, _project.c.id).where(_project.c.tenant_id == self.tenant_id)
        projects = {row[0]: row[1] for row in connection.execute(statement)}
        tree = self._tree(connection, list(projects.values()))
        leaves = [node for node in (self.tenant_id, *projects.values()) if node in tree]
        ceilings: dict[str, int] = {}
        for node in leaves:
            for resource in tree.node(node).quotas:
                ceilings[resource] = max(ceilings.get(resource, 0), tree.maximum(node, resource))
        return TenantCatalog(projects, ceilings)

    def _tree(self, connection: Connection, project_ids: Sequence[str]) -> Tree:
        """Return the tree, or only the tenant and its projects where nobody is above them to borrow from."""
        parent = connection.execute(select(_place.c.parent_id).where(_place.c.id == self.tenant_id)).scalar_one_or_none()
        return quota_tree.read(connection, self.now_ms, only=[self.tenant_id, *project_ids] if parent is None else None)
