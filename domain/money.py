"""Money: integers with a scale per currency, and the one function that rounds.

An amount is a count of the currency's smallest accounted unit: 10^-6 for USD, 10^-3 for VND (design.md section 8).
Example: 12.5 USD is Money(12_500_000, USD). Amounts of two currencies never meet: there is no arithmetic on Money.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Currency(Enum):
    """A currency and its scale: how many decimal digits the smallest accounted unit has."""

    USD = ("USD", 6)
    VND = ("VND", 3)

    def __init__(self, code: str, scale_digits: int) -> None:
        self.code = code
        self.scale_digits = scale_digits

    @classmethod
    def from_code(cls, code: str) -> Currency:
        """Return the currency named `code`; ValueError names the known ones."""
        for currency in cls:
            if currency.code == code:
                return currency
        raise ValueError(f"currency: {code!r} is not one of {', '.join(sorted(item.code for item in cls))}")


@dataclass(frozen=True, slots=True)
class Money:
    """`units` smallest accounted units of `currency`; may be negative (credits)."""

    units: int
    currency: Currency

    def to_decimal_text(self) -> str:
        """Return the exact amount as decimal digits, without the currency: `12.500000`."""
        scale = 10**self.currency.scale_digits
        sign = "-" if self.units < 0 else ""
        whole, part = divmod(abs(self.units), scale)
        return f"{sign}{whole}.{part:0{self.currency.scale_digits}d}"


def round_half_even(numerator: int, denominator: int) -> int:
    """Return numerator / denominator to the nearest integer, halves to even. The only place in Terrace where money is rounded."""
    if denominator <= 0:
        raise ValueError(f"denominator: must be positive, got {denominator}")
    quotient, remainder = divmod(numerator, denominator)
    doubled = 2 * remainder
    if doubled > denominator or (doubled == denominator and quotient % 2 == 1):
        return quotient + 1
    return quotient
