"""Half-open intervals of UTC milliseconds.

Every charge, reservation and report window is [start, end). Two intervals that touch do not overlap, so a span cut
anywhere has the same total length as the whole. Example: [0, 10) cut at 4 is [0, 4) and [4, 10), 10 ms in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MILLISECONDS_PER_SECOND = 1_000
MILLISECONDS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """[start_ms, end_ms) in UTC milliseconds; empty when both are equal."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if self.end_ms < self.start_ms:
            raise ValueError(f"interval: end {self.end_ms} lies before start {self.start_ms}")

    @property
    def length_ms(self) -> int:
        """Milliseconds covered."""
        return self.end_ms - self.start_ms

    def clip(self, window: Interval) -> Interval | None:
        """Return the part inside `window`, or None when nothing of it is."""
        start_ms = max(self.start_ms, window.start_ms)
        end_ms = min(self.end_ms, window.end_ms)
        return Interval(start_ms, end_ms) if start_ms < end_ms else None

    def overlaps(self, other: Interval) -> bool:
        """Tell whether the two share at least one millisecond."""
        return max(self.start_ms, other.start_ms) < min(self.end_ms, other.end_ms)


def cut(whole: Interval, cut_points_ms: Iterable[int]) -> Iterator[Interval]:
    """Yield the pieces of `whole` between the cut points that lie strictly inside it, in order, without gap or overlap."""
    start_ms = whole.start_ms
    for point_ms in sorted(set(cut_points_ms)):
        if start_ms < point_ms < whole.end_ms:
            yield Interval(start_ms, point_ms)
            start_ms = point_ms
    yield Interval(start_ms, whole.end_ms)
