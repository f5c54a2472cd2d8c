"""A store that tells a test before and after each command: for what happens in between, and for a process that dies there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from store.commands import Command
from store.engine import Store

T = TypeVar("T")
Hook = Callable[[Command[Any]], Awaitable[None]]


class KilledError(Exception):
    """The process that ran a command is gone; its database is not."""


async def _nothing(_: Command[Any]) -> None:
    return


class HookedStore(Store):
    """The same open database as `store`, seen through hooks. Close `store`, not this."""

    def __init__(self, store: Store, *, before: Hook = _nothing, after: Hook = _nothing) -> None:
        self.__dict__.update(store.__dict__)
        self._store, self._hooks = store, (before, after)

    async def run(self, command: Command[T]) -> T:
        before, after = self._hooks
        await before(command)
        result = await self._store.run(command)
        await after(command)
        return result


class KillPoint:
    """Counts commands and dies at number `at`, before it is run or after it is durable."""

    def __init__(self, at: int, *, is_after: bool) -> None:
        self.count, self.at, self.is_after = 0, at, is_after

    @property
    def has_struck(self) -> bool:
        """True once it has died."""
        return self.count >= self.at

    async def before(self, _: Command[Any]) -> None:
        """Count; die here unless the death comes after the commit."""
        self.count += 1
        if self.count >= self.at and not self.is_after:
            raise KilledError

    async def after(self, _: Command[Any]) -> None:
        """Die here when the death comes after the commit."""
        if self.count >= self.at and self.is_after:
            raise KilledError

    def store(self, store: Store) -> HookedStore:
        """Return `store` as the doomed process sees it."""
        return HookedStore(store, before=self.before, after=self.after)
