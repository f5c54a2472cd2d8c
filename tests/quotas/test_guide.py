"""The numbers of docs/guides/quotas.md are true."""

from __future__ import annotations

from fractions import Fraction

from quotas import share
from quotas.amount import Amount
from quotas.share import Share
from quotas.tree import NodeKind, Quota, QuotaNode, Tree

GPU = "h200"


def lending(borrow: int | None = None) -> Tree:
    limit = None if borrow is None else Amount(borrow)
    return Tree(
        [
            QuotaNode("all", NodeKind.COHORT, quotas={GPU: Quota(Amount(2))}),
            QuotaNode("a", NodeKind.TENANT, "all", quotas={GPU: Quota(Amount(3), limit)}),
            QuotaNode("b", NodeKind.TENANT, "all", quotas={GPU: Quota(Amount(5), None, Amount(2))}),
        ]
    )


def test_lending_limit_of_the_guide() -> None:
    tree = lending()
    assert (tree.maximum("a", GPU), tree.available("a", GPU)) == (7, 7)
    tree.add("b", {GPU: Amount(4)})
    assert (tree.usage("all", GPU), tree.available("a", GPU)) == (1, 6)


def test_borrowing_limit_of_the_guide() -> None:
    tree = lending(borrow=1)
    tree.add("b", {GPU: Amount(5)})
    assert tree.available("a", GPU) == tree.maximum("a", GPU) == 4


def test_shares_of_the_guide() -> None:
    none = {GPU: Quota(Amount(0))}
    tree = Tree(
        [
            QuotaNode("all", NodeKind.COHORT, quotas={GPU: Quota(Amount(12))}),
            QuotaNode("a", NodeKind.TENANT, "all", Fraction(2), none),
            QuotaNode("b", NodeKind.TENANT, "all", Fraction(1), none),
        ]
    )
    tree.add("a", {GPU: Amount(4)})
    tree.add("b", {GPU: Amount(6)})
    after = [share.after(tree, name, {GPU: Amount(2)})[name] for name in "ab"]
    assert after == [Share(1, 4), Share(2, 3)]
