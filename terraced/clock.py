"""The service's clock: the one place where the composition root asks for the time and for chance."""

from __future__ import annotations

import secrets
import time

from domain import ids


def now_ms() -> int:
    """Return the current time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def new_id(kind: str) -> str:
    """Return a fresh identifier of `kind`."""
    return ids.make(kind, now_ms=now_ms(), entropy=secrets.token_bytes(ids.ENTROPY_BYTES))
