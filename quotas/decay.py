"""The memory of fair sharing: what each quota node borrowed in the past, worth half as much after every half-life.

Owns the decayed sums and the arithmetic that makes them the same on every machine: integers only, decayed at fixed epochs. Does
not own shares (share.py reads a `Past`) or where the memory is kept between decisions; whoever keeps it calls `observe` before
the usage in the tree changes, and hands `past` to the decision.

A half-life has 64 epochs. Within an epoch what is borrowed adds up, amount times milliseconds; at its end every sum is multiplied by
2**(-1/64), as a fixed-point number of 32 bits, rounded down. Example: 8 GPUs borrowed for a day, 7 days ago, with a half-life of 7
days, weigh as much as 4 GPUs borrowed for a day just now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quotas.tree import Tree

EPOCHS_PER_HALF_LIFE = 64
FIXED_POINT_BITS = 32
FACTOR = 4_248_701_964  # 2**(-1/64) in fixed point, rounded down; test_decay.py proves it without floats

Kinds = Mapping[str, int]  # "gpu", CPU and memory, as in Tree.lendable


@dataclass(frozen=True, slots=True)
class Past:
    """What every quota node borrowed, decayed, in amount times milliseconds. `weight` turns a sum into an average amount.

    An average is `sum * weight / scale`: what was borrowed all the time at the same rate comes out as that rate.
    """

    sums: Mapping[str, Kinds]
    half_life_ms: int

    @property
    def weight(self) -> int:
        """The numerator of the average."""
        return (1 << FIXED_POINT_BITS) - FACTOR

    @property
    def scale(self) -> int:
        """The denominator of the average."""
        return epoch_ms(self.half_life_ms) << FIXED_POINT_BITS

    def sum_of(self, node: str) -> Kinds:
        """Return the decayed sums of a node; empty when it never borrowed."""
        return self.sums.get(node, {})


def epoch_ms(half_life_ms: int) -> int:
    """Return the length of an epoch."""
    return max(half_life_ms // EPOCHS_PER_HALF_LIFE, 1)


def borrowed(tree: Tree, node: str) -> dict[str, int]:
    """Return what a node holds above its own quota now, GPUs of all models together. Unlimited quota is never exceeded."""
    return tree.borrowings(node, {})


@dataclass(slots=True)
class Memory:
    """The running sums. It is told the time and the tree; between two observations nothing in the tree may change."""

    half_life_ms: int
    now_ms: int
    sums: dict[str, dict[str, int]] = field(default_factory=dict)

    def observe(self, tree: Tree, now_ms: int) -> None:
        """Account for the time up to `now_ms`, during which the tree was as it is."""
        if now_ms <= self.now_ms:
            return
        rates = {node.name: rate for node in tree.nodes() if node.parent is not None and (rate := borrowed(tree, node.name))}
        length_ms = epoch_ms(self.half_life_ms)
        at_ms = self.now_ms
        while at_ms < now_ms:
            end_ms = min((at_ms // length_ms + 1) * length_ms, now_ms)
            before, is_whole_epoch = self.sums, end_ms - at_ms == length_ms
            self.sums = self._after(rates, end_ms - at_ms, is_epoch_over=end_ms % length_ms == 0)
            at_ms = end_ms
            if is_whole_epoch and self.sums == before:
                # From here on every whole epoch gives the same sums, so the rest of a long silence costs nothing.
                at_ms = max(now_ms // length_ms * length_ms, at_ms)
        self.now_ms = now_ms

    def _after(self, rates: Mapping[str, Kinds], span_ms: int, *, is_epoch_over: bool) -> dict[str, dict[str, int]]:
        """Return the sums after a span within one epoch."""
        after: dict[str, dict[str, int]] = {}
        for node in [*self.sums, *(node for node in rates if node not in self.sums)]:
            sums = dict(self.sums.get(node, {}))
            for kind, over in rates.get(node, {}).items():
                sums[kind] = sums.get(kind, 0) + over * span_ms
            if is_epoch_over:
                sums = {kind: value for kind, total in sums.items() if (value := total * FACTOR >> FIXED_POINT_BITS)}
            if sums:
                after[node] = sums
        return after

    def past(self) -> Past:
        """Return the memory as a decision may read it: a copy that later observations do not change."""
        return Past({node: dict(sums) for node, sums in self.sums.items()}, self.half_life_ms)
