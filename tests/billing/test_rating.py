"""Rating turns a closed lease into lines: by hand, and by properties that hold for every lease and price book."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.calc import pricing, rating
from domain.intervals import Interval
from domain.states import FailureClass, LeaseEndCause

HOUR_MS = 3_600_000
LEASE = rating.ClosedLease(
    id="lea_1",
    tenant_id="ten_a",
    project_id="prj_a",
    user_id="usr_a",
    job_id="job_1",
    flavor="h200",
    slices=2,
    milli_gpu=2_000,
    charged=Interval(HOUR_MS, 3 * HOUR_MS),
    end_cause=LeaseEndCause.COMPLETED,
)
BOOK = (pricing.Price(0, "pri_1", "h200", 3_500_000), pricing.Price(2 * HOUR_MS, "pri_2", "h200", 4_000_000))
prices_strategy = st.lists(
    st.builds(
        pricing.Price,
        valid_from_ms=st.integers(0, 10_000_000),
        id=st.just("pri"),
        flavor=st.sampled_from(["h200", "a100"]),
        units_per_hour=st.integers(0, 10**9),
    ),
    max_size=6,
    unique_by=lambda price: (price.flavor, price.valid_from_ms),
)


def cut(whole: Interval, cut_points_ms: list[int]) -> list[Interval]:
    """Return the pieces of `whole` between the cut points that lie inside it."""
    inside = sorted({point for point in cut_points_ms if whole.start_ms < point < whole.end_ms})
    return [Interval(start, end) for start, end in itertools.pairwise([whole.start_ms, *inside, whole.end_ms])]


def spans(low: int, high: int) -> st.SearchStrategy[Interval]:
    return st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda pair: Interval(min(pair), max(pair)))


def test_price_change_inside_a_lease_makes_two_lines_each_at_its_own_price() -> None:
    lines = rating.rate(LEASE, BOOK)
    assert [(line.price_id, line.interval, line.milli_gpu_ms, line.amount_units) for line in lines] == [
        ("pri_1", Interval(HOUR_MS, 2 * HOUR_MS), 2_000 * HOUR_MS, 7_000_000),
        ("pri_2", Interval(2 * HOUR_MS, 3 * HOUR_MS), 2_000 * HOUR_MS, 8_000_000),
    ]


def test_half_a_unit_goes_to_the_even_neighbour() -> None:
    half_hour_at_5 = rating.cost_units(units_per_hour=5, slices=1, length_ms=HOUR_MS // 2)
    half_hour_at_7 = rating.cost_units(units_per_hour=7, slices=1, length_ms=HOUR_MS // 2)
    assert (half_hour_at_5, half_hour_at_7) == (2, 4)


def test_time_before_the_first_price_is_shown_and_costs_nothing() -> None:
    lines = rating.rate(LEASE, BOOK[1:])
    assert [(line.price_id, line.amount_units) for line in lines] == [(None, 0), ("pri_2", 8_000_000)]


def test_prices_of_other_flavors_do_not_matter() -> None:
    assert rating.rate(LEASE, (*BOOK, pricing.Price(HOUR_MS + 1, "pri_x", "a100", 99))) == rating.rate(LEASE, BOOK)


@pytest.mark.parametrize(
    ("cause", "failure", "is_credited"),
    [
        pytest.param(LeaseEndCause.COMPLETED, None, False, id="a completed job pays"),
        pytest.param(LeaseEndCause.FAILED, FailureClass.USER_CODE, False, id="an error in user code pays"),
        pytest.param(LeaseEndCause.TIME_LIMIT, FailureClass.TIME_LIMIT, False, id="a job at its time limit pays"),
        pytest.param(LeaseEndCause.PREEMPTED, None, False, id="time before a preemption was used and pays"),
        pytest.param(LeaseEndCause.FAILED, FailureClass.DEVICE, True, id="a broken device is credited"),
        pytest.param(LeaseEndCause.FAILED, FailureClass.PLATFORM, True, id="our own failure is credited"),
        pytest.param(LeaseEndCause.NODE_LOST, None, True, id="a lost node is credited"),
        pytest.param(LeaseEndCause.NEVER_STARTED, None, True, id="a lease that never ran is credited"),
    ],
)
def test_only_ends_that_the_user_caused_are_charged(cause: LeaseEndCause, failure: FailureClass | None, is_credited: bool) -> None:
    lines = rating.rate(replace(LEASE, end_cause=cause, failure_class=failure), BOOK)
    assert sum(line.amount_units for line in lines) == (0 if is_credited else 15_000_000)
    assert sum(line.milli_gpu_ms for line in lines) == 2_000 * 2 * HOUR_MS


@given(spans(0, 20_000_000), prices_strategy)
def test_lines_tile_the_lease_exactly(charged: Interval, prices: list[pricing.Price]) -> None:
    lines = rating.rate(replace(LEASE, charged=charged), prices)
    assert lines[0].interval.start_ms == charged.start_ms
    assert lines[-1].interval.end_ms == charged.end_ms
    assert all(left.interval.end_ms == right.interval.start_ms for left, right in itertools.pairwise(lines))
    assert sum(line.milli_gpu_ms for line in lines) == LEASE.milli_gpu * charged.length_ms


@given(spans(0, 20_000_000), st.integers(0, 10**9), st.integers(1, 64), st.lists(st.integers(0, 20_000_000), max_size=8))
def test_split_and_whole_cost_the_same(whole: Interval, units_per_hour: int, slices: int, cut_points_ms: list[int]) -> None:
    def cost(part: Interval) -> int:
        return rating.part_cost_units(units_per_hour=units_per_hour, slices=slices, segment_start_ms=whole.start_ms, part=part)

    assert sum(cost(part) for part in cut(whole, cut_points_ms)) == cost(whole)


@given(spans(0, 20_000_000), prices_strategy)
def test_order_of_the_price_book_does_not_matter(charged: Interval, prices: list[pricing.Price]) -> None:
    lease = replace(LEASE, charged=charged)
    assert rating.rate(lease, prices) == rating.rate(lease, list(reversed(prices)))
