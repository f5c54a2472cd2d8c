"""The price book as segments: which price holds in which part of an interval.

A price row of a flavor holds from its `valid_from_ms` until the next row of the same flavor begins. Time before the first row has no
price: it becomes a segment of its own that costs nothing and names no price, so that reports show the gap instead of hiding it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.intervals import Interval


@dataclass(frozen=True, slots=True, order=True)
class Price:
    """One row of the price book: smallest accounted units per slice and hour, from `valid_from_ms` on."""

    valid_from_ms: int
    id: str
    flavor: str
    units_per_hour: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an interval in which one price (or none) holds."""

    interval: Interval
    price: Price | None


def segments(whole: Interval, prices: Sequence[Price], flavor: str | None) -> tuple[Segment, ...]:
    """Cut `whole` where the price of `flavor` changes. The segments tile `whole`: no gap, no overlap, in order of time."""
    rows = sorted(price for price in prices if price.flavor == flavor)
    found: list[Segment] = []
    start_ms = whole.start_ms
    holding: Price | None = None
    for price in rows:
        if price.valid_from_ms <= start_ms:
            holding = price
            continue
        if price.valid_from_ms >= whole.end_ms:
            break
        found.append(Segment(Interval(start_ms, price.valid_from_ms), holding))
        start_ms, holding = price.valid_from_ms, price
    found.append(Segment(Interval(start_ms, whole.end_ms), holding))
    return tuple(found)
