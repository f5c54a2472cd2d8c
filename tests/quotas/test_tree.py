"""The quota tree: what a node may hold, borrow and lend. Examples are worked by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from quotas import decay, share
from quotas.amount import UNLIMITED, ZERO, Amount
from quotas.share import NOTHING
from quotas.tree import NodeKind, Quota, QuotaNode, Tree, TreeError

GPU = "h200"


def cohort(name: str, nominal: int = 0, *, parent: str | None = None, borrow: int | None = None, lend: int | None = None) -> QuotaNode:
    return QuotaNode(name, NodeKind.COHORT, parent, quotas=quotas(nominal, borrow, lend))


def tenant(name: str, nominal: int, *, parent: str | None = None, borrow: int | None = None, lend: int | None = None) -> QuotaNode:
    return QuotaNode(name, NodeKind.TENANT, parent, quotas=quotas(nominal, borrow, lend))


def quotas(nominal: int, borrow: int | None, lend: int | None) -> Mapping[str, Quota]:
    limits = [None if limit is None else Amount(limit) for limit in (borrow, lend)]
    return {GPU: Quota(Amount(nominal), *limits)}


def use(tree: Tree, name: str, amount: int) -> None:
    tree.add(name, {GPU: Amount(amount)})


def test_lone_tenant_has_its_nominal_quota() -> None:
    tree = Tree([tenant("x", 8)])
    use(tree, "x", 3)
    assert (tree.available("x", GPU), tree.maximum("x", GPU)) == (5, 8)


def test_members_borrow_all_that_others_do_not_use() -> None:
    tree = Tree([cohort("all", 2), tenant("x", 3, parent="all"), tenant("y", 5, parent="all")])
    use(tree, "y", 1)
    assert tree.available("x", GPU) == 9
    assert tree.maximum("x", GPU) == 10


def test_borrowing_limit_caps_what_lies_above_nominal() -> None:
    tree = Tree([cohort("all"), tenant("x", 3, parent="all", borrow=2), tenant("y", 5, parent="all")])
    assert tree.available("x", GPU) == 5
    use(tree, "x", 4)
    assert tree.available("x", GPU) == 1


def test_lending_limit_keeps_quota_for_its_owner() -> None:
    tree = Tree([cohort("all"), tenant("x", 3, parent="all"), tenant("y", 5, parent="all", lend=2)])
    assert tree.available("x", GPU) == 5
    use(tree, "x", 5)
    assert tree.available("y", GPU) == 3


def test_usage_shows_at_the_parent_only_above_local_quota() -> None:
    tree = Tree([cohort("all"), tenant("x", 8, parent="all", lend=3)])
    use(tree, "x", 6)
    assert tree.usage("all", GPU) == 1


def test_quota_flows_through_nested_cohorts() -> None:
    tree = Tree([cohort("root", 1), cohort("left", parent="root"), cohort("right", 4, parent="root"), tenant("x", 2, parent="left")])
    assert tree.available("x", GPU) == 7


def test_cohorts_borrowing_limit_binds_its_members() -> None:
    tree = Tree([cohort("root", 10), cohort("left", parent="root", borrow=1), tenant("x", 2, parent="left")])
    assert tree.available("x", GPU) == 3


def test_available_is_negative_after_a_quota_was_cut() -> None:
    tree = Tree([tenant("x", 1)])
    use(tree, "x", 3)
    assert tree.available("x", GPU) == -2


def test_unlimited_quota_is_never_used_up() -> None:
    tree = Tree([QuotaNode("x", NodeKind.TENANT, quotas={GPU: Quota(UNLIMITED)})])
    use(tree, "x", 10**12)
    assert tree.available("x", GPU) == UNLIMITED


def test_resource_that_nobody_limits_is_unlimited() -> None:
    tree = Tree([tenant("x", 1)])
    assert tree.available("x", "cpu") == UNLIMITED
    assert not tree.governs("x", "cpu")


def test_borrowing_limit_is_told_apart_from_an_empty_cohort() -> None:
    tree = Tree([cohort("all"), tenant("x", 1, parent="all", borrow=1), tenant("y", 5, parent="all")])
    use(tree, "x", 2)
    assert tree.is_blocked_by_borrowing_limit("x", GPU, Amount(1))
    use(tree, "y", 4)
    assert not tree.is_blocked_by_borrowing_limit("x", GPU, Amount(1))


def test_copy_changes_apart_from_its_origin() -> None:
    tree = Tree([tenant("x", 8)])
    use(tree.copy(), "x", 3)
    assert tree.usage("x", GPU) == ZERO


def test_tenant_of_a_project_is_the_node_below_the_cohorts() -> None:
    tree = Tree([cohort("all"), tenant("x", 1, parent="all"), QuotaNode("p", NodeKind.PROJECT, "x")])
    assert (tree.tenant_of("p"), tree.is_leaf("p"), tree.is_leaf("x")) == ("x", True, False)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        pytest.param([tenant("x", 1), tenant("x", 1)], "x: stands twice", id="name given twice"),
        pytest.param([tenant("x", 1, parent="y")], "x: its parent y does not exist", id="missing parent"),
        pytest.param([cohort("x", parent="y"), cohort("y", parent="x")], "x: its parents form a ring", id="ring of parents"),
    ],
)
def test_nodes_that_form_no_forest_are_refused(nodes: list[QuotaNode], message: str) -> None:
    with pytest.raises(TreeError, match=message):
        Tree(nodes)


def cpu_beside_gpus() -> Tree:
    """Tenants x with 10 CPUs to lend and y whose quota says nothing of CPUs, in a cohort that says nothing of them either."""
    quotas = {GPU: Quota(Amount(1)), "cpu": Quota(Amount(10))}
    return Tree(
        [cohort("all"), QuotaNode("x", NodeKind.TENANT, "all", quotas=quotas), tenant("y", 1, parent="all"), tenant("z", 1, parent="all")]
    )


def test_cpus_of_a_tenant_without_a_cpu_quota_take_nothing_from_its_siblings() -> None:
    tree = cpu_beside_gpus()
    tree.add("y", {GPU: Amount(1), "cpu": Amount(8)})
    assert (tree.available("x", "cpu"), tree.usage("all", "cpu")) == (10, ZERO)
    tree.remove("y", {GPU: Amount(1), "cpu": Amount(8)})
    assert (tree.available("x", "cpu"), tree.usage("y", GPU)) == (10, ZERO)


def test_cpus_that_no_quota_governs_make_nobody_a_borrower() -> None:
    tree = cpu_beside_gpus()
    assert not tree.borrows_with("y", {"cpu": Amount(8)})
    assert share.after(tree, "y", {GPU: Amount(1), "cpu": Amount(8)})["y"] == NOTHING


def test_cohort_without_quotas_of_its_own_borrows_what_its_members_hold_above_theirs() -> None:
    cohorts = [QuotaNode("all", NodeKind.COHORT), QuotaNode("left", NodeKind.COHORT, "all")]
    tree = Tree([*cohorts, tenant("x", 1, parent="left"), tenant("y", 4, parent="all")])
    use(tree, "x", 3)
    assert (tree.borrowed("left", GPU), tree.is_within("left", [GPU]), decay.borrowed(tree, "left")) == (2, False, {"gpu": 2})
