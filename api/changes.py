"""One watch on the database for everybody in this process who waits: streams and long polls.

Owns the sharing. `Store.wait_for_change` looks every few milliseconds; a thousand followers that each did so would keep the process busy
with looking. Here one task looks while somebody waits, and wakes all. Waking too often is allowed, missing a change is not. Belongs to
one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib

from store.engine import Store

ROUND_SECONDS = 1.0


class Changes:
    """The shared watch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting = 0
        self._changed = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    def mark(self) -> int:
        """Return a mark of the database's state, to be taken before reading what one then waits to change."""
        return self._store.change_mark()

    async def wait(self, since: int, timeout_seconds: float) -> bool:
        """Return True as soon as something may have changed since `since`, False after the timeout."""
        if self._store.change_mark() != since:
            return True
        # No step may be taken between the look above and the wait below: a change in between would wake nobody.
        changed = self._changed
        self._waiting += 1
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look(since))
        try:
            async with asyncio.timeout(timeout_seconds):
                await changed.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    async def close(self) -> None:
        """End the watch; those who still wait run into their timeouts."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def _look(self, mark: int) -> None:
        while self._waiting:
            newest = await self._store.wait_for_change(mark, ROUND_SECONDS)
            if newest != mark:
                mark = newest
                self._changed.set()
                self._changed = asyncio.Event()
