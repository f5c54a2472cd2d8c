"""The quota tree: cohorts above, tenants below them, projects inside tenants; jobs are charged at leaves.

Owns: how much each node may hold, lends, borrows and uses, per resource. Does not own: who is served first (share.py
gives it numbers) or devices. Called by scheduler/decision/, which works on a copy.

Semantics are Kueue's. A node's *subtree quota* is its own nominal quota and what its children lend upwards. Its *local
quota* is the part that a lending limit keeps back. Usage fills the local quota first; only the part above it bubbles
to the parent, and removing usage does the mirror image. Example: nominal 8, lending limit 3: local quota 5; usage 6
shows as 1 at the parent. Usage may exceed every limit after a quota was cut; then `available` is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from quotas import amount
from quotas.amount import Amount

DEPTH_MAXIMUM = 16  # levels between a leaf and its root; deeper trees are refused as bad input

RESOURCE_CPU = "cpu"  # milli-CPU
RESOURCE_MEMORY = "memory"  # bytes; every other resource is a GPU model in milli-GPU

Usage = Mapping[str, Amount]


class NodeKind(StrEnum):
    """What a quota node stands for. Cohorts share between tenants; a tenant with projects is an inner node."""

    COHORT = "cohort"
    TENANT = "tenant"
    PROJECT = "project"


class PreemptWithin(StrEnum):
    """Whose running jobs a pending job of the same tenant may stop."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    LOWER_OR_NEWER_EQUAL = "lower_or_newer_equal"


class Reclaim(StrEnum):
    """Whose running jobs in the cohort a pending job within its nominal quota may stop."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    ANY = "any"


class BorrowPreempt(StrEnum):
    """Whether a borrowing job may stop jobs of others that borrow."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"


class WhenCanBorrow(StrEnum):
    """Whether a job that fits a flavor by borrowing takes it, or looks for one that it fits without."""

    BORROW = "borrow"
    TRY_NEXT_FLAVOR = "try_next_flavor"


class WhenCanPreempt(StrEnum):
    """Whether a job that fits a flavor by preemption takes it, or looks for one that it fits without."""

    PREEMPT = "preempt"
    TRY_NEXT_FLAVOR = "try_next_flavor"


@dataclass(frozen=True, slots=True)
class Fungibility:
    """How far a leaf's jobs go down their list of flavors. The defaults are Kueue's."""

    when_can_borrow: WhenCanBorrow = WhenCanBorrow.BORROW
    when_can_preempt: WhenCanPreempt = WhenCanPreempt.TRY_NEXT_FLAVOR


@dataclass(frozen=True, slots=True)
class Preemption:
    """A leaf's preemption policy, in Kueue's three parts."""

    within_tenant: PreemptWithin = PreemptWithin.NEVER
    reclaim_within_cohort: Reclaim = Reclaim.NEVER
    borrow_within_cohort: BorrowPreempt = BorrowPreempt.NEVER
    borrow_max_priority: int | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """One resource of one node. `borrowing_limit` and `lending_limit` of None mean no such limit."""

    nominal: Amount
    borrowing_limit: Amount | None = None
    lending_limit: Amount | None = None


@dataclass(frozen=True, slots=True)
class QuotaNode:
    """One node as configured. `weight` is the right to a fair share: 2 gets twice as much as 1, 0 comes last."""

    name: str
    kind: NodeKind
    parent: str | None = None
    weight: Fraction = Fraction(1)
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    preemption: Preemption = Preemption()
    fungibility: Fungibility = Fungibility()
    user_cap: Amount | None = None  # milli-GPU of all models that one user may hold here; None = no cap


class TreeError(ValueError):
    """The nodes do not form a forest: a parent is missing, a name stands twice, or parents form a ring."""


@dataclass(slots=True)
class _Cell:
    """What one node holds of one resource: the fixed quotas and the changing usage."""

    subtree_quota: Amount
    local_quota: Amount
    borrowing_limit: Amount | None
    usage: Amount


class Tree:
    """A forest of quota nodes with usage. Reading is pure; `add` and `remove` change this tree only."""

    def __init__(self, nodes: Iterable[QuotaNode]) -> None:
        """Build the tree without usage; `TreeError` names the first node that does not fit."""
        self._nodes: dict[str, QuotaNode] = {}
        for node in nodes:
            if node.name in self._nodes:
                raise TreeError(f"{node.name}: stands twice")
            self._nodes[node.name] = node
        self._children: dict[str, list[str]] = {name: [] for name in self._nodes}
        self._paths = {name: self._path_to_root(name) for name in self._nodes}
        for name, node in self._nodes.items():
            if node.parent is not None:
                self._children[node.parent].append(name)
        self.resources = tuple(dict.fromkeys(resource for node in self._nodes.values() for resource in node.quotas))
        self._governed = self._find_governed()
        self._cells = self._build_cells()
        self._lendable: dict[str, dict[str, Amount]] = {}  # fixed by the configuration, so copies share it

    def _path_to_root(self, name: str) -> tuple[str, ...]:
        path = [name]
        while (parent := self._nodes[path[-1]].parent) is not None:
            if parent not in self._nodes:
                raise TreeError(f"{path[-1]}: its parent {parent} does not exist")
            if parent in path or len(path) >= DEPTH_MAXIMUM:
                raise TreeError(f"{name}: its parents form a ring or lie more than {DEPTH_MAXIMUM} levels deep")
            path.append(parent)
        return tuple(path)

    def _find_governed(self) -> dict[str, frozenset[str]]:
        governed: dict[str, set[str]] = {
            name: {part for above in path for part in self._nodes[above].quotas} for name, path in self._paths.items()
        }
        for name, path in self._paths.items():
            for above in path[1:]:
                governed[above] |= self._nodes[name].quotas.keys()
        return {name: frozenset(resources) for name, resources in governed.items()}

    def _build_cells(self) -> dict[str, dict[str, _Cell]]:
        cells: dict[str, dict[str, _Cell]] = {name: {} for name in self._nodes}
        # Children come before parents, because a subtree quota is the sum of what is below.
        for name in sorted(self._nodes, key=lambda name: -len(self._paths[name])):
            for resource in self.resources:
                quota = self._nodes[name].quotas.get(resource)
                subtree_quota = quota.nominal if quota else amount.ZERO
                for child in self._children[name]:
                    below = cells[child][resource]
                    subtree_quota = amount.add(subtree_quota, amount.subtract(below.subtree_quota, below.local_quota))
                local_quota = amount.ZERO
                if quota and quota.lending_limit is not None:
                    local_quota = amount.at_least_zero(amount.subtract(subtree_quota, quota.lending_limit))
                cells[name][resource] = _Cell(subtree_quota, local_quota, quota.borrowing_limit if quota else None, amount.ZERO)
        return cells

    def copy(self) -> Tree:
        """Return a tree whose usage changes apart from this one; the configuration is shared."""
        twin = object.__new__(Tree)
        twin._nodes, twin._children, twin._paths, twin.resources = self._nodes, self._children, self._paths, self.resources
        twin._lendable, twin._governed = self._lendable, self._governed
        twin._cells = {
            name: {
                resource: _Cell(cell.subtree_quota, cell.local_quota, cell.borrowing_limit, cell.usage)
                for resource, cell in row.items()
            }
            for name, row in self._cells.items()
        }  # fmt: skip
        return twin

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def node(self, name: str) -> QuotaNode:
        """Return the node as configured; KeyError when there is none."""
        return self._nodes[name]

    def nodes(self) -> Iterable[QuotaNode]:
        """Return all nodes, in the order given."""
        return self._nodes.values()

    def children(self, name: str) -> tuple[str, ...]:
        """Return the names below `name`, in the order given."""
        return tuple(self._children[name])

    def path(self, name: str) -> tuple[str, ...]:
        """Return the names from `name` (included) up to its root."""
        return self._paths[name]

    def is_leaf(self, name: str) -> bool:
        """Tell whether jobs can be charged at `name`."""
        return not self._children[name] and self._nodes[name].kind is not NodeKind.COHORT

    def tenant_of(self, name: str) -> str:
        """Return the tenant that a leaf belongs to: the highest node on its path that is no cohort."""
        above = [part for part in self._paths[name] if self._nodes[part].kind is not NodeKind.COHORT]
        return above[-1] if above else name

    def preemption_of(self, leaf: str) -> Preemption:
        """Return the preemption policy of a leaf: its own, or its tenant's when a project says nothing."""
        own = self._nodes[leaf].preemption
        return own if own != Preemption() else self._nodes[self.tenant_of(leaf)].preemption

    def fungibility_of(self, leaf: str) -> Fungibility:
        """Return how a leaf's jobs choose among flavors: as it says itself, or as its tenant says."""
        own = self._nodes[leaf].fungibility
        return own if own != Fungibility() else self._nodes[self.tenant_of(leaf)].fungibility

    def parting(self, left: str, right: str) -> tuple[str, str] | None:
        """Return the ancestors of two leaves (or the leaves) that stand just below their lowest common node; None without one."""
        above_right = {name: at for at, name in enumerate(self._paths[right])}
        path = self._paths[left]
        for at, name in enumerate(path):
            if name in above_right:
                return (path[max(at - 1, 0)], self._paths[right][max(above_right[name] - 1, 0)])
        return None

    def tenant_path(self, leaf: str) -> tuple[str, ...]:
        """Return the names from a leaf up to its tenant, both included."""
        return tuple(name for name in self._paths[leaf] if self._nodes[name].kind is not NodeKind.COHORT)

    def governs(self, name: str, resource: str) -> bool:
        """Tell whether quota speaks of `resource` for `name` at all: its own, that of a node above it, or of one below."""
        return resource in self._governed[name]

    def counts(self, leaf: str, resource: str) -> bool:
        """Tell whether usage of `resource` is charged. CPU and memory of a leaf that no such quota governs are nobody's business."""
        return resource in self._governed[leaf] or resource not in (RESOURCE_CPU, RESOURCE_MEMORY)

    def counted(self, leaf: str, usage: Usage) -> Usage:
        """Return the part of `usage` that is charged at a leaf."""
        if usage.keys() <= self._governed[leaf]:
            return usage
        return {resource: wanted for resource, wanted in usage.items() if self.counts(leaf, resource)}

    def permits(self, leaf: str, model: str) -> bool:
        """Tell whether a leaf may ask for a GPU model: it must stand in its quota. A project without any quota uses its tenant's."""
        for part in self._paths[leaf]:
            node = self._nodes[part]
            if node.kind is NodeKind.COHORT:
                return False
            if model in node.quotas:
                return True
            if node.quotas:
                return False
        return False

    def add(self, leaf: str, usage: Usage) -> None:
        """Charge `usage` at a leaf; the part above each node's local quota bubbles to its parent."""
        for resource, charged in usage.items():
            rest = charged if self.counts(leaf, resource) else amount.ZERO
            for part in self._paths[leaf]:
                cell = self._cells[part].get(resource)
                if cell is None or rest <= 0:
                    break
                local_free = amount.at_least_zero(amount.subtract(cell.local_quota, cell.usage))
                cell.usage = amount.add(cell.usage, rest)
                rest = amount.subtract(rest, local_free)

    def remove(self, leaf: str, usage: Usage) -> None:
        """Take `usage` back from a leaf: the mirror image of `add`, so that the two cancel exactly."""
        for resource, charged in usage.items():
            rest = charged if self.counts(leaf, resource) else amount.ZERO
            for part in self._paths[leaf]:
                cell = self._cells[part].get(resource)
                if cell is None or rest <= 0:
                    break
                above_local = amount.subtract(cell.usage, cell.local_quota)
                cell.usage = amount.subtract(cell.usage, rest)
                rest = amount.smaller(rest, amount.at_least_zero(above_local))

    def usage(self, name: str, resource: str) -> Amount:
        """What is charged at a leaf, or what bubbled up to an inner node."""
        cell = self._cells[name].get(resource)
        return cell.usage if cell else amount.ZERO

    def subtree_quota(self, name: str, resource: str) -> Amount:
        """What a node owns and what its children lend to it; for a leaf its nominal quota."""
        cell = self._cells[name].get(resource)
        return cell.subtree_quota if cell else amount.ZERO

    def available(self, name: str, resource: str) -> Amount:
        """How much more `name` can hold now, borrowing included; negative while it holds more than its limits."""
        path = self._paths[name]
        root = self._cells[path[-1]].get(resource)
        if root is None:
            return amount.UNLIMITED  # nobody in the tree limits this resource
        free = amount.subtract(root.subtree_quota, root.usage)
        for part in reversed(path[:-1]):
            cell = self._cells[part][resource]
            local_free = amount.at_least_zero(amount.subtract(cell.local_quota, cell.usage))
            if cell.borrowing_limit is not None:
                lent_up = amount.subtract(cell.subtree_quota, cell.local_quota)
                used_up = amount.at_least_zero(amount.subtract(cell.usage, cell.local_quota))
                free = amount.smaller(amount.add(amount.subtract(lent_up, used_up), cell.borrowing_limit), free)
            free = amount.add(local_free, free)
        return free

    def maximum(self, name: str, resource: str) -> Amount:
        """The most that `name` could ever hold, when nobody else held anything; what lies above it can never start."""
        path = self._paths[name]
        root = self._cells[path[-1]].get(resource)
        if root is None:
            return amount.UNLIMITED
        most = root.subtree_quota
        for part in reversed(path[:-1]):
            cell = self._cells[part][resource]
            most = amount.add(cell.local_quota, most)
            if cell.borrowing_limit is not None:
                most = amount.smaller(amount.add(cell.subtree_quota, cell.borrowing_limit), most)
        return most

    def borrowed(self, name: str, resource: str) -> Amount:
        """How much of the usage of `name` lies above its own quota, zero or more."""
        return amount.at_least_zero(amount.subtract(self.usage(name, resource), self.subtree_quota(name, resource)))

    def borrowings(self, name: str, extra: Usage) -> dict[str, int]:
        """Return what `name` would hold above its own quota with `extra` beside its usage: GPUs of all models as "gpu", CPU, memory."""
        found: dict[str, int] = {}
        for resource, cell in self._cells[name].items():
            over = cell.usage + extra.get(resource, 0) - cell.subtree_quota  # unlimited quota is larger than anything that is held
            if over > 0:
                kind = resource if resource in (RESOURCE_CPU, RESOURCE_MEMORY) else "gpu"
                found[kind] = found.get(kind, 0) + over
        return found

    def is_within(self, name: str, resources: Iterable[str]) -> bool:
        """Tell whether `name` holds no more than its own quota of any of `resources`, that is, borrows none of them."""
        return all(self.usage(name, resource) <= self.subtree_quota(name, resource) for resource in resources)

    def fits_within(self, name: str, usage: Usage) -> bool:
        """Tell whether `name` could hold `usage` as well without borrowing. Resources that no quota governs always fit."""
        return all(
            amount.add(self.usage(name, resource), wanted) <= self.subtree_quota(name, resource)
            for resource, wanted in usage.items()
            if self.governs(name, resource)
        )

    def borrows_with(self, leaf: str, usage: Usage) -> bool:
        """Tell whether the tenant of `leaf` would hold more than its own quota once `usage` is charged at the leaf."""
        tenant = self.tenant_of(leaf)
        for resource, wanted in self.counted(leaf, usage).items():
            rest = wanted
            for part in self._paths[leaf][: self._paths[leaf].index(tenant)]:
                rest = self.bubbling(part, resource, rest)
            if not self.fits_within(tenant, {resource: rest}):
                return True
        return False

    def fits_below_root(self, leaf: str, resource: str, wanted: Amount) -> bool:
        """Tell whether some node on the path, short of the root, could hold `wanted` more for its leaf without borrowing."""
        rest = wanted
        for part in self._paths[leaf][:-1]:
            if amount.add(self.usage(part, resource), rest) <= self.subtree_quota(part, resource):
                return True
            rest = self.bubbling(part, resource, rest)
        return False

    def bubbling(self, name: str, resource: str, wanted: Amount) -> Amount:
        """How much of `wanted`, charged at `name` now, would show at its parent."""
        cell = self._cells[name].get(resource)
        if cell is None:
            return wanted
        local_free = amount.at_least_zero(amount.subtract(cell.local_quota, cell.usage))
        return amount.at_least_zero(amount.subtract(wanted, local_free))

    def lendable(self, name: str) -> dict[str, Amount]:
        """What the members of cohort `name` could borrow of it when it stood empty: GPUs of all models as "gpu", CPU, memory."""
        known = self._lendable.get(name)
        if known is None:
            known = {"gpu": amount.ZERO, RESOURCE_CPU: amount.ZERO, RESOURCE_MEMORY: amount.ZERO}
            for resource in self.resources:
                kind = resource if resource in (RESOURCE_CPU, RESOURCE_MEMORY) else "gpu"
                known[kind] = amount.add(known[kind], self.maximum(name, resource))
            self._lendable[name] = known
        return known

    def is_blocked_by_borrowing_limit(self, name: str, resource: str, wanted: Amount) -> bool:
        """Tell whether a borrowing limit on the path refuses `wanted` although the nodes above could lend it."""
        for part in self._paths[name]:
            cell = self._cells[part].get(resource)
            if cell is None or cell.borrowing_limit is None:
                continue
            ceiling = amount.add(cell.subtree_quota, cell.borrowing_limit)
            if amount.add(cell.usage, wanted) > ceiling and wanted <= self._available_above(part, resource):
                return True
        return False

    def _available_above(self, name: str, resource: str) -> Amount:
        parent = self._nodes[name].parent
        return amount.ZERO if parent is None else self.available(parent, resource)
