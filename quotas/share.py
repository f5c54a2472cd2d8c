"""Weighted dominant shares: how much of what a cohort can lend each of its members has borrowed.

Owns the number by which tenants are compared under fair sharing. Does not own the comparison of priorities and times
(scheduler/decision/order.py). The share of a node is its largest ratio of borrowed to lendable over GPUs (all models
together), CPU and memory, divided by its weight. A node within its own quota has share 0. Shares are fractions of integers
and compare by cross-multiplication, so no rounding ever decides. Example: 3 borrowed of 12 lendable at weight 2 is 3/24.

With a `Past` (decay.py) a share counts what the node borrows now and, beside it, the decayed average of what it borrowed before.
The present counts in full at once: that is the entry penalty which keeps somebody without a past from taking everything in
one burst. Example: after a week of borrowing 4 of 12 with a half-life of a week, 3 more now make 3/12 + 2/12.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from quotas import amount
from quotas.decay import Past
from quotas.tree import Tree, Usage


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """numerator / denominator, at least 0. Weight 0 comes last: larger than every share with a weight, and compared without one."""

    numerator: int
    denominator: int
    is_last: bool = False

    def __lt__(self, other: Share) -> bool:
        if self.is_last is not other.is_last:
            return other.is_last
        return self.numerator * other.denominator < other.numerator * self.denominator

    def __le__(self, other: Share) -> bool:
        return not other < self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Share):
            return NotImplemented
        return self.is_last is other.is_last and self.numerator * other.denominator == other.numerator * self.denominator

    def __hash__(self) -> int:
        return hash((self.is_last, self.numerator // self.denominator))


NOTHING = Share(0, 1)


def after(tree: Tree, leaf: str, usage: Usage, past: Past | None = None) -> dict[str, Share]:
    """Return the share that each node on the leaf's path would have once `usage` is added. Roots compare with nobody: share 0."""
    rest = dict(tree.counted(leaf, usage))
    shares: dict[str, Share] = {}
    for name in tree.path(leaf):
        shares[name] = _share(tree, name, rest, past)
        rest = {resource: tree.bubbling(name, resource, wanted) for resource, wanted in rest.items()}
    return shares


def after_at(tree: Tree, name: str, leaf: str, usage: Usage, past: Past | None = None) -> Share:
    """Return the share that `name`, a node on the leaf's path, would have once `usage` is added at the leaf."""
    rest = dict(tree.counted(leaf, usage))
    for part in tree.path(leaf):
        if part == name:
            break
        rest = {resource: tree.bubbling(part, resource, wanted) for resource, wanted in rest.items()}
    return _share(tree, name, rest, past)


def of(tree: Tree, name: str, past: Past | None = None) -> Share:
    """Return the share of `name` as it stands."""
    return _share(tree, name, {}, past)


def _share(tree: Tree, name: str, extra: Usage, past: Past | None) -> Share:
    node = tree.node(name)
    if node.parent is None:
        return NOTHING
    borrowed = tree.borrowings(name, extra)
    scale = 1
    if past is not None and (sums := past.sum_of(name)):
        scale = past.scale
        borrowed = {kind: over * scale for kind, over in borrowed.items()}
        for kind, total in sums.items():
            borrowed[kind] = borrowed.get(kind, 0) + total * past.weight
    if not borrowed:
        return NOTHING
    lendable = tree.lendable(node.parent)
    is_last = node.weight == 0
    weight = node.weight or Fraction(1)
    largest = Share(0, 1, is_last)
    for kind, over in borrowed.items():
        if amount.is_unlimited(lendable[kind]) or lendable[kind] <= 0:
            continue
        share = Share(over * weight.denominator, lendable[kind] * weight.numerator * scale, is_last)
        largest = share if largest < share else largest
    return largest
