"""The memory of fair sharing: exact, in integers, and worth half after a half-life."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from quotas import decay, share
from quotas.amount import UNLIMITED, Amount
from quotas.decay import EPOCHS_PER_HALF_LIFE, FACTOR, FIXED_POINT_BITS, Memory, Past
from quotas.share import Share
from quotas.tree import RESOURCE_CPU, NodeKind, Quota, QuotaNode, Tree

GPU = "h200"
DAY_MS = 86_400_000
HALF_LIFE_MS = 7 * DAY_MS


def tree(**held: int) -> Tree:
    """Tenants x and y without quota of their own in a cohort of twelve."""
    nodes = [QuotaNode("all", NodeKind.COHORT, quotas={GPU: Quota(Amount(12))})]
    nodes += [QuotaNode(name, NodeKind.TENANT, "all", quotas={GPU: Quota(Amount(0))}) for name in "xy"]
    made = Tree(nodes)
    for name, gpus in held.items():
        made.add(name, {GPU: Amount(gpus)})
    return made


def average(past: Past, node: str) -> Fraction:
    return Fraction(past.sum_of(node).get("gpu", 0) * past.weight, past.scale)


def test_factor_is_the_largest_whose_epochs_halve() -> None:
    half = 1 << (FIXED_POINT_BITS * EPOCHS_PER_HALF_LIFE - 1)
    assert FACTOR**EPOCHS_PER_HALF_LIFE <= half < (FACTOR + 1) ** EPOCHS_PER_HALF_LIFE


def test_what_was_borrowed_is_worth_half_after_a_half_life() -> None:
    memory = Memory(HALF_LIFE_MS, 0)
    memory.observe(tree(x=8), DAY_MS)
    before = memory.past().sum_of("x")["gpu"]
    memory.observe(tree(), DAY_MS + HALF_LIFE_MS)
    assert abs(Fraction(memory.past().sum_of("x")["gpu"], before) - Fraction(1, 2)) < Fraction(1, 10**6)


def test_what_was_always_borrowed_is_the_average() -> None:
    memory = Memory(HALF_LIFE_MS, 0)
    memory.observe(tree(x=8), 30 * HALF_LIFE_MS)
    # It was decayed just now, so it lies an epoch's decay below.
    assert Fraction(79, 10) < average(memory.past(), "x") <= 8


def test_own_quota_leaves_no_trace() -> None:
    memory = Memory(HALF_LIFE_MS, 0)
    own = Tree([QuotaNode("all", NodeKind.COHORT), QuotaNode("x", NodeKind.TENANT, "all", quotas={GPU: Quota(Amount(8))})])
    own.add("x", {GPU: Amount(8)})
    memory.observe(own, DAY_MS)
    assert memory.past().sums == {}


def test_cpus_are_remembered_apart_and_unlimited_quota_never() -> None:
    nodes = [
        QuotaNode("all", NodeKind.COHORT),
        QuotaNode("x", NodeKind.TENANT, "all", quotas={RESOURCE_CPU: Quota(Amount(1)), GPU: Quota(UNLIMITED)}),
    ]
    made = Tree(nodes)
    made.add("x", {RESOURCE_CPU: Amount(3), GPU: Amount(9)})
    memory = Memory(HALF_LIFE_MS, 0)
    memory.observe(made, 10)
    assert memory.past().sums == {"x": {RESOURCE_CPU: 20}}


def test_past_is_a_copy() -> None:
    memory = Memory(HALF_LIFE_MS, 0)
    memory.observe(tree(x=1), 10)
    past = memory.past()
    memory.observe(tree(x=1), 20)
    assert past.sum_of("x") == {"gpu": 10}


def test_time_does_not_go_back() -> None:
    memory = Memory(HALF_LIFE_MS, 100)
    memory.observe(tree(x=1), 50)
    assert (memory.now_ms, memory.past().sums) == (100, {})


def test_traces_vanish_after_a_long_silence() -> None:
    memory = Memory(64, 0)
    memory.observe(tree(x=12), 1_000)
    memory.observe(tree(), 10**12)
    assert memory.past().sums == {}


def test_half_life_shorter_than_its_epochs_still_decays() -> None:
    memory = Memory(1, 0)
    memory.observe(tree(x=1), 1_000)
    assert decay.epoch_ms(1) == 1
    assert average(memory.past(), "x") < 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 10**5)), max_size=6), st.integers(1, 10**5))
def test_splitting_a_span_of_time_changes_nothing(spans: list[tuple[int, int]], half_life_ms: int) -> None:
    whole, split = Memory(half_life_ms, 0), Memory(half_life_ms, 0)
    at_ms = 0
    for held, length_ms in spans:
        for part in (length_ms // 3, length_ms // 2, length_ms):
            split.observe(tree(x=held), at_ms + part)
        at_ms += length_ms
        whole.observe(tree(x=held), at_ms)
    assert whole.past() == split.past()


def test_part_of_an_epoch_that_changes_nothing_is_no_rest() -> None:
    memory, whole = Memory(128, 0), Memory(128, 0)
    memory.observe(tree(x=1), 3)  # epochs of two: the third millisecond begins one and the fourth ends it
    memory.observe(tree(x=1), 6)
    whole.observe(tree(x=1), 6)
    assert memory.past() == whole.past() == Past({"x": {"gpu": 3}}, 128)


def test_share_adds_the_average_to_what_is_borrowed_now() -> None:
    past = Past({"x": {"gpu": 5}}, 64)
    # Epochs of a millisecond: the average is 5 * weight / 2**32.
    expected = Share(3 * past.scale + 5 * past.weight, 12 * past.scale)
    assert share.of(tree(x=3), "x", past) == expected
    assert share.after(tree(x=1), "x", {GPU: Amount(2)}, past)["x"] == expected
    assert share.of(tree(y=3), "y", past) == Share(3, 12)


def test_weights_of_zero_compare_without_a_weight_and_after_all_others() -> None:
    last, also_last = Share(1, 12, is_last=True), Share(2, 12, is_last=True)
    assert Share(99, 1) < last < also_last
    assert not also_last <= last
    assert last <= Share(2, 24, is_last=True)
    assert last == Share(2, 24, is_last=True) != Share(1, 12)
    assert hash(last) == hash(Share(2, 24, is_last=True))
