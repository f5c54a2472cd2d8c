"""The scheduler service's clock and chance: the one place where the loop asks for either."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time

from domain import ids


def now_ms() -> int:
    """Return the current time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait that long, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def new_id(kind: str) -> str:
    """Return a fresh identifier of `kind`."""
    return ids.make(kind, now_ms=now_ms(), entropy=secrets.token_bytes(ids.ENTROPY_BYTES))


def new_token() -> str:
    """Return a fresh secret for the Ray cluster of one lease."""
    return secrets.token_hex(32)
