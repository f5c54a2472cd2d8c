"""Weighted dominant shares, worked by hand; test_properties.py has what holds for all of them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from quotas import share
from quotas.amount import UNLIMITED, Amount
from quotas.share import NOTHING, Share
from quotas.tree import NodeKind, Quota, QuotaNode, Tree

GPU = "h200"


def shared(*, cohort: Amount, weight: int = 1, own: int = 0, cpu: int | None = None) -> Tree:
    """Tenant x below a cohort that owns some GPUs, and CPUs where they are given."""
    quotas = {GPU: Quota(cohort)} | ({"cpu": Quota(Amount(cpu))} if cpu is not None else {})
    return Tree(
        [
            QuotaNode("all", NodeKind.COHORT, quotas=quotas),
            QuotaNode("x", NodeKind.TENANT, "all", Fraction(weight), {GPU: Quota(Amount(own))}),
        ]
    )


def held(tree: Tree, **usage: int) -> Share:
    tree.add("x", {resource: Amount(value) for resource, value in usage.items()})
    return share.of(tree, "x")


@pytest.mark.parametrize(
    ("own", "weight", "value"), [(0, 1, Share(6, 12)), (2, 1, Share(4, 14)), (6, 1, NOTHING), (7, 1, NOTHING), (0, 2, Share(6, 24))]
)
def test_share_is_what_is_borrowed_of_what_can_be_lent_by_weight(own: int, weight: int, value: Share) -> None:
    assert held(shared(cohort=Amount(12), own=own, weight=weight), h200=6) == value


def test_cohort_without_limit_has_enough_for_everybody_so_nothing_of_it_is_a_share() -> None:
    assert held(shared(cohort=UNLIMITED), h200=6) == NOTHING


def test_what_is_held_of_a_cohort_that_has_nothing_left_to_lend_is_no_share() -> None:
    assert held(shared(cohort=Amount(0)), h200=6) == NOTHING


@pytest.mark.parametrize(("cpu", "value"), [(2, Share(3, 12)), (9, Share(9, 10))], ids=["GPUs", "CPUs"])
def test_largest_of_the_resources_counts(cpu: int, value: Share) -> None:
    assert held(shared(cohort=Amount(12), cpu=10), h200=3, cpu=cpu) == value


def test_weight_of_nothing_comes_after_every_share_and_compares_without_a_weight() -> None:
    last, more = held(shared(cohort=Amount(12), weight=0), h200=1), held(shared(cohort=Amount(12), weight=0), h200=2)
    assert held(shared(cohort=Amount(12)), h200=12) < last < more


def test_root_shares_with_nobody() -> None:
    assert share.of(Tree([QuotaNode("x", NodeKind.TENANT, quotas={GPU: Quota(Amount(0))})]), "x") == NOTHING
