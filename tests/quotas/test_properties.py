"""What holds for every quota tree and every sequence of changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quotas import share
from quotas.amount import UNLIMITED, Amount, add, subtract
from quotas.share import Share
from quotas.tree import NodeKind, Quota, QuotaNode, Tree

GPU = "h200"
amounts = st.integers(0, 20).map(Amount)
quotas = st.builds(Quota, amounts, st.none() | amounts, st.none() | amounts)


@st.composite
def trees(draw: st.DrawFn) -> tuple[Tree, list[str]]:
    """A root, up to three cohorts below it and up to four tenants anywhere. Names come from counters."""
    nodes = [QuotaNode("root", NodeKind.COHORT, quotas={GPU: Quota(draw(amounts))})]
    cohorts = ["root"]
    for at in range(draw(st.integers(0, 3))):
        nodes.append(QuotaNode(f"cohort-{at}", NodeKind.COHORT, draw(st.sampled_from(cohorts)), quotas={GPU: draw(quotas)}))
        cohorts.append(f"cohort-{at}")
    leaves = [f"tenant-{at}" for at in range(draw(st.integers(1, 4)))]
    nodes += [QuotaNode(leaf, NodeKind.TENANT, draw(st.sampled_from(cohorts)), quotas={GPU: draw(quotas)}) for leaf in leaves]
    return Tree(nodes), leaves


def state(tree: Tree) -> dict[str, int]:
    return {node.name: tree.usage(node.name, GPU) for node in tree.nodes()}


@given(trees(), st.data())
def test_removing_what_was_added_restores_every_node(made: tuple[Tree, list[str]], data: st.DataObject) -> None:
    tree, leaves = made
    charges = data.draw(st.lists(st.tuples(st.sampled_from(leaves), amounts), max_size=8))
    states = [state(tree)]
    for leaf, amount in charges:
        tree.add(leaf, {GPU: amount})
        states.append(state(tree))
    for (leaf, amount), before in zip(reversed(charges), reversed(states[:-1]), strict=True):
        tree.remove(leaf, {GPU: amount})
        assert state(tree) == before


@given(trees(), st.data())
def test_usage_does_not_depend_on_the_order_of_removal(made: tuple[Tree, list[str]], data: st.DataObject) -> None:
    tree, leaves = made
    charges = data.draw(st.lists(st.tuples(st.sampled_from(leaves), amounts), max_size=8))
    for leaf, amount in charges:
        tree.add(leaf, {GPU: amount})
    for leaf, amount in data.draw(st.permutations(charges)):
        tree.remove(leaf, {GPU: amount})
    assert set(state(tree).values()) == {0}


@given(trees(), st.data())
def test_taking_only_what_is_available_never_breaks_a_limit(made: tuple[Tree, list[str]], data: st.DataObject) -> None:
    tree, leaves = made
    for _ in range(6):
        leaf = data.draw(st.sampled_from(leaves))
        amount = data.draw(amounts)
        if amount <= tree.available(leaf, GPU):
            tree.add(leaf, {GPU: amount})
    root = tree.node("root")
    assert tree.usage(root.name, GPU) <= tree.subtree_quota(root.name, GPU)
    for node in tree.nodes():
        limit = node.quotas[GPU].borrowing_limit
        assert limit is None or tree.borrowed(node.name, GPU) <= limit


@given(trees())
def test_empty_tree_offers_the_maximum(made: tuple[Tree, list[str]]) -> None:
    tree, leaves = made
    assert [tree.available(leaf, GPU) for leaf in leaves] == [tree.maximum(leaf, GPU) for leaf in leaves]


@given(trees(), st.data())
def test_share_after_a_start_is_the_share_once_it_is_charged(made: tuple[Tree, list[str]], data: st.DataObject) -> None:
    tree, leaves = made
    for leaf in leaves:
        tree.add(leaf, {GPU: data.draw(amounts)})
    leaf, usage = leaves[0], {GPU: data.draw(amounts)}
    foretold = share.after(tree, leaf, usage)
    tree.add(leaf, usage)
    assert foretold == {name: share.of(tree, name) for name in tree.path(leaf)}


@given(st.integers(0, 99), st.integers(1, 99), st.integers(0, 99), st.integers(1, 99))
def test_shares_compare_as_fractions(a: int, b: int, c: int, d: int) -> None:
    assert (Share(a, b) < Share(c, d)) == (a * d < c * b)
    assert (Share(a, b) == Share(c, d)) == (a * d == c * b)
    assert Share(a, b) < Share(c, d, is_last=True)


@given(st.integers(-5, 10**9).map(Amount))
def test_unlimited_saturates(amount: Amount) -> None:
    assert add(UNLIMITED, amount) == UNLIMITED
    assert subtract(UNLIMITED, amount) == UNLIMITED
