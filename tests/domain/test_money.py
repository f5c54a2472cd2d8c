"""Money: integers with a scale, two currencies that never meet, and the one function that rounds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.money import Currency, Money, round_half_even

HUGE = st.integers(min_value=-(1 << 80), max_value=1 << 80)
POSITIVE = st.integers(min_value=1, max_value=1 << 40)


@pytest.mark.parametrize(
    ("units", "currency", "text"),
    [
        (12_500_000, Currency.USD, "12.500000"),
        (1, Currency.USD, "0.000001"),
        (-1, Currency.USD, "-0.000001"),
        (-12_500_000, Currency.USD, "-12.500000"),
        (0, Currency.VND, "0.000"),
        (25_000_500, Currency.VND, "25000.500"),
    ],
)
def test_amount_is_written_exactly(units: int, currency: Currency, text: str) -> None:
    assert Money(units, currency).to_decimal_text() == text


@given(HUGE, st.sampled_from(Currency))
def test_text_reads_back_as_the_amount(units: int, currency: Currency) -> None:
    assert Fraction(Money(units, currency).to_decimal_text()) * 10**currency.scale_digits == units


def test_currency_is_found_by_its_code() -> None:
    assert [Currency.from_code(code) for code in ("USD", "VND")] == [Currency.USD, Currency.VND]
    with pytest.raises(ValueError, match="currency: 'usd' is not one of USD, VND"):
        Currency.from_code("usd")


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (-5, 2, -2), (1, 3, 0), (2, 3, 1), (-2, 3, -1), (7, 1, 7), (0, 9, 0)],
)
def test_halves_go_to_the_even_neighbour(numerator: int, denominator: int, rounded: int) -> None:
    assert round_half_even(numerator, denominator) == rounded


@given(HUGE, POSITIVE)
def test_rounding_is_that_of_exact_fractions(numerator: int, denominator: int) -> None:
    assert round_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize("denominator", [0, -1])
def test_denominator_must_be_positive(denominator: int) -> None:
    with pytest.raises(ValueError, match=f"denominator: must be positive, got {denominator}"):
        round_half_even(1, denominator)
