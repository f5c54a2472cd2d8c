"""Weighted dominant shares: how much of what a cohort can lend each of its members has borrowed.

Owns the number by which tenants are compared under fair sharing. Does not own the comparison of priorities and times
(scheduler/decision/order.py). The share of a node is its largest ratio of borrowed to lendable over GPUs (all models
together), CPU and memory, divided by its weight. A node within its own quota has share 0. Shares are fractions of integers
and compare by cross-multiplication, so no rounding ever decides. Example: 3 borrowed of 12 lendable at weight 2 is 3/24.
"""

from __future__ import annotations

from dataclasses import dataclass

from quotas import amount
from quotas.amount import Amount
from quotas.tree import RESOURCE_CPU, RESOURCE_MEMORY, Tree, Usage


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """numerator / denominator, at least 0. A denominator of 0 is larger than every number: weight 0 that borrows."""

    numerator: int
    denominator: int

    def __lt__(self, other: Share) -> bool:
        return self.numerator * other.denominator < other.numerator * self.denominator

    def __le__(self, other: Share) -> bool:
        return not other < self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Share):
            return NotImplemented
        if not self.denominator or not other.denominator:
            return self.denominator == other.denominator
        return self.numerator * other.denominator == other.numerator * self.denominator

    def __hash__(self) -> int:
        return hash(self.numerator // self.denominator) if self.denominator else -1


NOTHING = Share(0, 1)
INFINITE = Share(1, 0)


def after(tree: Tree, leaf: str, usage: Usage) -> dict[str, Share]:
    """Return the share that each node on the leaf's path would have once `usage` is added. Roots compare with nobody: share 0."""
    rest = dict(usage)
    shares: dict[str, Share] = {}
    for name in tree.path(leaf):
        shares[name] = _share(tree, name, rest)
        rest = {resource: tree.bubbling(name, resource, wanted) for resource, wanted in rest.items()}
    return shares


def of(tree: Tree, name: str) -> Share:
    """Return the share of `name` as it stands."""
    return _share(tree, name, {})


def _share(tree: Tree, name: str, extra: Usage) -> Share:
    node = tree.node(name)
    if node.parent is None:
        return NOTHING
    borrowed: dict[str, Amount] = {}
    for resource in tree.resources:
        held = amount.add(tree.usage(name, resource), extra.get(resource, amount.ZERO))
        over = amount.subtract(held, tree.subtree_quota(name, resource))
        if over > 0:
            kind = resource if resource in (RESOURCE_CPU, RESOURCE_MEMORY) else "gpu"
            borrowed[kind] = amount.add(borrowed.get(kind, amount.ZERO), over)
    if not borrowed:
        return NOTHING
    if node.weight == 0:
        return INFINITE
    lendable = tree.lendable(node.parent)
    largest = NOTHING
    for kind, over in borrowed.items():
        if amount.is_unlimited(lendable[kind]) or lendable[kind] <= 0:
            continue
        share = Share(over * node.weight.denominator, lendable[kind] * node.weight.numerator)
        largest = share if largest < share else largest
    return largest
