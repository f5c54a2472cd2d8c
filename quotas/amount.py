"""Amounts of a resource: integers that can be unlimited.

Owns the arithmetic: milli-GPU, milli-CPU and bytes are all counted so, in one scale per resource. `Amount` is its own
type, so that a bare `+` or `-` (which would turn "unlimited" into a large number) does not pass the type check. The
quota tree is the only caller that does sums; everyone else compares. Example: add(UNLIMITED, Amount(5)) is UNLIMITED.
"""

from __future__ import annotations

from typing import NewType

Amount = NewType("Amount", int)

ZERO = Amount(0)
UNLIMITED = Amount(1 << 62)  # larger than any fleet in any unit, and still a 64-bit integer


def is_unlimited(amount: Amount) -> bool:
    """Tell whether `amount` stands for "no limit"."""
    return amount >= UNLIMITED


def add(left: Amount, right: Amount) -> Amount:
    """Return the sum; unlimited plus anything is unlimited."""
    if left >= UNLIMITED or right >= UNLIMITED:
        return UNLIMITED
    return Amount(left + right)


def subtract(left: Amount, right: Amount) -> Amount:
    """Return what is left; unlimited less anything is unlimited. Below zero after a quota was cut: a fact, not an error."""
    if left >= UNLIMITED:
        return UNLIMITED
    return Amount(left - right)


def at_least_zero(amount: Amount) -> Amount:
    """Return `amount`, or zero when it lies below."""
    return amount if amount > 0 else ZERO


def smaller(left: Amount, right: Amount) -> Amount:
    """Return the smaller of the two."""
    return left if left <= right else right
