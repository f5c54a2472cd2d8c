"""The quota tree as operators look at it: every node with its rules, quotas in force, what it holds and its share.

Owns the reading only; the numbers are those of quotas/tree.py and quotas/share.py, over the same rows that the scheduler reads. The share
is of what a node borrows at the moment; where the policy remembers the past, the scheduler adds that (docs/guides/quotas.md). Projects
stand in the tree where one of their tenant's has a quota of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from quotas import amount, share
from quotas.amount import Amount
from quotas.tree import NodeKind, QuotaNode, Tree
from store import quota_usage
from store.errors import NotFoundError
from store.tables import QuotaNode as QuotaNodeRow

SHARE_SCALE = 1_000_000
WEIGHT_SCALE = 1_000

_place = QuotaNodeRow.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ResourceView:
    """One resource of a node, in its unit. `nominal` None: the node has no quota of it. `available` None: nobody limits it."""

    resource: str
    nominal: int | None
    borrowing_limit: int | None
    lending_limit: int | None
    subtree: int
    held: int
    borrowed: int
    available: int | None


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node. `depth` counts from its root, 0. `share_micro` is None for a root, which shares with nobody; a cohort's rules are None."""

    id: str
    name: str
    kind: str
    parent_id: str | None
    depth: int
    weight_milli: int
    share_micro: int | None
    within_tenant: str | None
    reclaim_within_cohort: str | None
    borrow_within_cohort: str | None
    borrow_max_priority: int | None
    when_can_borrow: str | None
    when_can_preempt: str | None
    user_cap_milli_gpu: int | None
    resources: tuple[ResourceView, ...]


@dataclass(frozen=True, slots=True)
class QuotaTree:
    """The whole tree at `now_ms`: parents before what is below them, cohorts before tenants, by name."""

    now_ms: int

    def fetch(self, connection: Connection, /) -> tuple[NodeView, ...]:
        """Return its nodes."""
        tree = quota_usage.charged_tree(connection, self.now_ms)
        names = {row.id: row.name for row in connection.execute(select(_place.c.id, _place.c.name))}
        roots = [node.name for node in tree.nodes() if node.parent is None]
        return tuple(_view(tree, node_id, names) for node_id in _in_order(tree, roots, names))


@dataclass(frozen=True, slots=True)
class QuotaNodeByName:
    """One node: a cohort, or a tenant, or a project of a tenant that stands in the tree."""

    now_ms: int
    tenant: str | None
    project: str | None = None
    cohort: str | None = None

    def fetch(self, connection: Connection, /) -> NodeView:
        """Return it; NotFoundError."""
        nodes = QuotaTree(self.now_ms).fetch(connection)
        if self.tenant is None:
            found = next((node for node in nodes if (node.kind, node.name) == (NodeKind.COHORT.value, self.cohort)), None)
            if found is None:
                raise NotFoundError("cohort_not_found", f"there is no cohort {self.cohort!r}", field="cohort")
            return found
        tenant = next((node for node in nodes if (node.kind, node.name) == (NodeKind.TENANT.value, self.tenant)), None)
        if tenant is None:
            raise NotFoundError("tenant_not_found", f"there is no tenant {self.tenant!r}", field="tenant")
        if self.project is None:
            return tenant
        project = next((node for node in nodes if (node.parent_id, node.name) == (tenant.id, self.project)), None)
        if project is None:
            message = f"tenant {self.tenant!r} has no project {self.project!r}, or no project of it has a quota"
            raise NotFoundError("project_not_found", message, field="project")
        return project


def _in_order(tree: Tree, roots: list[str], names: dict[str, str]) -> list[str]:
    def key(node_id: str) -> tuple[bool, str, str]:
        return tree.node(node_id).kind is not NodeKind.COHORT, names[node_id], node_id

    found: list[str] = []
    stack = sorted(roots, key=key, reverse=True)
    while stack:
        node_id = stack.pop()
        found.append(node_id)
        stack.extend(sorted(tree.children(node_id), key=key, reverse=True))
    return found


def _view(tree: Tree, node_id: str, names: dict[str, str]) -> NodeView:
    node = tree.node(node_id)
    has_rules = node.kind is not NodeKind.COHORT
    own = share.of(tree, node_id)
    return NodeView(
        id=node_id,
        name=names[node_id],
        kind=node.kind.value,
        parent_id=node.parent,
        depth=len(tree.path(node_id)) - 1,
        weight_milli=int(node.weight * WEIGHT_SCALE),
        share_micro=None if node.parent is None else own.numerator * SHARE_SCALE // own.denominator,
        within_tenant=node.preemption.within_tenant.value if has_rules else None,
        reclaim_within_cohort=node.preemption.reclaim_within_cohort.value if has_rules else None,
        borrow_within_cohort=node.preemption.borrow_within_cohort.value if has_rules else None,
        borrow_max_priority=node.preemption.borrow_max_priority,
        when_can_borrow=node.fungibility.when_can_borrow.value if has_rules else None,
        when_can_preempt=node.fungibility.when_can_preempt.value if has_rules else None,
        user_cap_milli_gpu=node.user_cap,
        resources=tuple(_resource(tree, node, resource) for resource in sorted(tree.resources) if _speaks_of(tree, node, resource)),
    )


def _speaks_of(tree: Tree, node: QuotaNode, resource: str) -> bool:
    return resource in node.quotas or tree.usage(node.name, resource) > 0 or tree.subtree_quota(node.name, resource) > 0


def _resource(tree: Tree, node: QuotaNode, resource: str) -> ResourceView:
    quota = node.quotas.get(resource)
    available = tree.available(node.name, resource)
    return ResourceView(
        resource,
        _plain(quota.nominal) if quota else None,
        _plain(quota.borrowing_limit) if quota else None,
        _plain(quota.lending_limit) if quota else None,
        tree.subtree_quota(node.name, resource),
        tree.usage(node.name, resource),
        tree.borrowed(node.name, resource),
        None if amount.is_unlimited(available) else available,
    )


def _plain(value: Amount | None) -> int | None:
    return None if value is None else int(value)
