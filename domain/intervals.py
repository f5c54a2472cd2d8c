"""Half-open intervals of UTC milliseconds.

Every charge, reservation and report window is [start, end). Two intervals that touch do not overlap, so a span cut
anywhere has the same total length as the whole. Example: [0, 10) cut at 4 is [0, 4) and [4, 10), 10 ms in all.
"""

from __future__ import annotations

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
