"""Moments as people type them: a date, a date with a time, or a duration from now.

Owns the reading of `--from`, `--to`, `--until` and `--expires`. Without an offset a moment is in this machine's time zone, as tables show
it; it ends with Z or +07:00 where it must not depend on the machine. Reads the clock once, for durations.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import IntEnum

from terrace import units
from terrace.sdk.errors import InputError


class Direction(IntEnum):
    """Where a duration leads: `--from 7d` looks back, `--expires 90d` ahead."""

    BACK = -1
    AHEAD = 1


def read(field: str, text: str | None, direction: Direction) -> datetime | None:
    """Return the moment that `text` names, None for none; InputError for what is neither a moment nor a duration."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None:
        return moment.astimezone() if moment.tzinfo is None else moment
    try:
        away = timedelta(seconds=units.duration_seconds(field, text))
        return datetime.now(UTC) + direction * away
    except (InputError, OverflowError) as error:
        message = f"{text!r} is neither a moment such as 2026-11-01 or 2026-11-01T10:00Z nor a duration such as 7d"
        raise InputError(field, message) from error
