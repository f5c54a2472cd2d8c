"""What a capacity reservation left unused, as a sum and from rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.calc.reservations import Holding, unused_milli_gpu_ms

HOUR_MS = 3_600_000

holdings = st.lists(st.builds(Holding, st.integers(1, 9), st.integers(0, 60), st.integers(0, 60)), max_size=8)


@pytest.mark.parametrize(
    ("held", "gpu_hours"),
    [
        ([], 4),
        ([Holding(2_000, 0, HOUR_MS // 2)], 3),
        ([Holding(4_000, -HOUR_MS, 2 * HOUR_MS)], 0),
        ([Holding(3_000, 0, HOUR_MS), Holding(3_000, 0, HOUR_MS)], 0),
        ([Holding(4_000, HOUR_MS, 2 * HOUR_MS), Holding(4_000, -5, 0)], 4),
    ],
    ids=["nothing held", "half for half the time", "held before and after", "more than was set aside", "held outside only"],
)
def test_unused_is_what_was_set_aside_and_not_held(held: list[Holding], gpu_hours: int) -> None:
    assert unused_milli_gpu_ms(4_000, 0, HOUR_MS, held) == gpu_hours * 1_000 * HOUR_MS


@given(st.integers(1, 20), st.integers(0, 30), st.integers(1, 30), holdings)
def test_unused_equals_a_sum_over_every_millisecond(milli_gpu: int, start_ms: int, length_ms: int, held: list[Holding]) -> None:
    expected = 0
    for at_ms in range(start_ms, start_ms + length_ms):
        now = sum(item.milli_gpu for item in held if item.start_ms <= at_ms < item.end_ms)
        expected += max(milli_gpu - now, 0)

    assert unused_milli_gpu_ms(milli_gpu, start_ms, start_ms + length_ms, held) == expected
