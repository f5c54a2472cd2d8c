"""Amounts: integers of which the largest stands for "no limit"."""

from __future__ import annotations

import pytest

from quotas import amount
from quotas.amount import UNLIMITED, ZERO, Amount

ONE, TWO = Amount(1), Amount(2)


@pytest.mark.parametrize(("left", "right"), [(ONE, UNLIMITED), (UNLIMITED, ONE), (UNLIMITED, UNLIMITED), (UNLIMITED, Amount(-1))])
def test_unlimited_plus_anything_is_exactly_unlimited(left: Amount, right: Amount) -> None:
    assert amount.add(left, right) == UNLIMITED


def test_unlimited_less_anything_is_unlimited_and_the_rest_may_lie_below_zero() -> None:
    assert [amount.subtract(UNLIMITED, TWO), amount.subtract(ONE, TWO), amount.subtract(TWO, ONE)] == [UNLIMITED, -1, 1]


def test_only_unlimited_is_unlimited() -> None:
    assert [amount.is_unlimited(value) for value in (ZERO, Amount(UNLIMITED - 1), UNLIMITED)] == [False, False, True]


def test_smaller_and_at_least_zero_choose() -> None:
    assert [amount.smaller(ONE, TWO), amount.smaller(TWO, ONE), amount.smaller(UNLIMITED, TWO)] == [1, 1, 2]
    assert [amount.at_least_zero(value) for value in (Amount(-1), ZERO, ONE)] == [0, 0, 1]
