"""Windows that recur on the clock of a place: the same local time every so many days, across changes of daylight saving time.

Pure but for the time zone database that Python reads. A local time that a change skips moves forward by the change; one that comes twice
counts once, the first time. Design section 8: recurring windows follow the site's zone. Called by store/calendar.py and api.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

OCCURRENCES_MAXIMUM = 10_000
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Every `every_days` days at the same local time, as long as an occurrence begins before `until_ms`."""

    every_days: int
    until_ms: int
    time_zone: str = "UTC"

    @classmethod
    def of(cls, text: str | None) -> Recurrence | None:
        """Return what a row's text says, None for a window that comes once."""
        return None if text is None else cls(**json.loads(text))

    def text(self) -> str:
        """Return the text that a row keeps."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def occurrences(start_ms: int, end_ms: int, recurrence: Recurrence | None) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of a window and of its repetitions, in order; each is as long as the first, in elapsed time."""
    yield start_ms, end_ms
    if recurrence is None:
        return
    zone = ZoneInfo(recurrence.time_zone)
    first = (_EPOCH + start_ms * _MS).astimezone(zone).replace(tzinfo=None)
    for count in range(1, OCCURRENCES_MAXIMUM):
        local = (first + timedelta(days=count * recurrence.every_days)).replace(tzinfo=zone, fold=0)
        at_ms = (local.astimezone(UTC) - _EPOCH) // _MS
        if at_ms >= recurrence.until_ms:
            return
        yield at_ms, at_ms + end_ms - start_ms
