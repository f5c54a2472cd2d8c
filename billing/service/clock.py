"""Billing's clock: the one place where the billing service asks for the time."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the current time in UTC milliseconds."""
    return time.time_ns() // 1_000_000
