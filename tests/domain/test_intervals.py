"""Half-open intervals: what touches does not overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.intervals import Interval

POINTS = st.integers(min_value=-1_000, max_value=1_000)
INTERVALS = st.tuples(POINTS, POINTS).map(lambda pair: Interval(min(pair), max(pair)))


def test_length_is_in_milliseconds_and_may_be_zero() -> None:
    assert (Interval(3, 10).length_ms, Interval(3, 3).length_ms) == (7, 0)


def test_end_before_start_is_refused() -> None:
    with pytest.raises(ValueError, match="interval: end 2 lies before start 3"):
        Interval(3, 2)


@pytest.mark.parametrize(
    ("window", "clipped"),
    [
        pytest.param(Interval(0, 100), Interval(10, 20), id="window around"),
        pytest.param(Interval(12, 15), Interval(12, 15), id="window inside"),
        pytest.param(Interval(0, 15), Interval(10, 15), id="window ends inside"),
        pytest.param(Interval(15, 100), Interval(15, 20), id="window begins inside"),
        pytest.param(Interval(0, 10), None, id="window touches the start"),
        pytest.param(Interval(20, 30), None, id="window touches the end"),
        pytest.param(Interval(15, 15), None, id="empty window"),
    ],
)
def test_clip_is_the_part_inside_a_window(window: Interval, clipped: Interval | None) -> None:
    assert Interval(10, 20).clip(window) == clipped


@given(INTERVALS, INTERVALS)
def test_nothing_is_left_of_intervals_that_share_no_millisecond(one: Interval, other: Interval) -> None:
    shared = set(range(one.start_ms, one.end_ms)) & set(range(other.start_ms, other.end_ms))
    assert (one.clip(other) is not None) == (other.clip(one) is not None) == bool(shared)
