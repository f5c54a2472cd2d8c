"""Writes one note after another through the store and prints the name of each that was acknowledged, until it is killed or told to stop.

Arguments: database URL, a prefix, how many at most. Started by tests in a process of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import dataclass

from sqlalchemy import Connection, text

from store.engine import Store
from store.errors import RefusalError

SIDE_BY_SIDE = 16


@dataclass(frozen=True)
class Note:
    """A row called `name`."""

    name: str

    def execute(self, connection: Connection, /) -> str:
        connection.execute(text("INSERT INTO leader VALUES (:name, '', 0, 0, 0)"), {"name": self.name})
        return self.name


async def main(url: str, prefix: str, count: int) -> None:
    """Write with several tasks at once, so that groups form."""
    store, numbers = Store.open(url), itertools.count()

    async def work() -> None:
        while (number := next(numbers)) < count:
            try:
                print(await store.run(Note(f"{prefix}{number:06}")), flush=True)
            except RefusalError:
                continue

    await asyncio.gather(*(work() for _ in range(SIDE_BY_SIDE)))
    store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
