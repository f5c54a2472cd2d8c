"""The API's clock: the one place of this package that asks for the time and for chance."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache

from domain import ids


def now_ms() -> int:
    """Return the current time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def new_id(kind: str) -> str:
    """Return a fresh identifier of `kind`."""
    return ids.make(kind, now_ms=now_ms(), entropy=secrets.token_bytes(ids.ENTROPY_BYTES))


@lru_cache(maxsize=4_096)
def rfc3339(time_ms: int) -> str:
    """Return UTC milliseconds as RFC 3339 text: `2026-11-24T02:22:12.123Z`."""
    seconds, milliseconds = divmod(time_ms, 1_000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{milliseconds:03d}Z"


def to_ms(moment: datetime) -> int:
    """Return an aware datetime as UTC milliseconds, rounded down."""
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000 + moment.microsecond // 1_000


def monotonic() -> float:
    """Return seconds of a clock that never goes back, for durations and deadlines."""
    return time.monotonic()
