"""Durable commits per second of the store, beside the bare database in the same run.

One command is one submitted job (a job row, its class and an event) that was acknowledged after its commit. On SQLite many callers share a
commit; the peer is a bare table with one insert per commit at the same `synchronous=FULL`. Prints JSON rows for `make bench`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rows import Rows

COMMANDS = 4_000
ROUNDS = 5
TENANT_MILLI_GPU = 8_000


def bare_commits_per_second(folder: Path) -> float:
    """Insert one row per commit into a bare table."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, name TEXT)")
    began = time.perf_counter()
    for number in range(COMMANDS):
        connection.execute("INSERT INTO job (name) VALUES (?)", (f"job {number}",))
    seconds = time.perf_counter() - began
    connection.close()
    return COMMANDS / seconds


def submits_per_second(rows: Rows, *, callers: int) -> float:
    """Run `COMMANDS` submits from `callers` tasks, each of which waits for its commit before the next."""
    commands = list(rows.submissions(COMMANDS, together=1))

    async def one(number: int) -> None:
        for command in commands[number::callers]:
            await rows.store.run(command)

    async def everyone() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(callers)))
        return time.perf_counter() - began

    return COMMANDS / asyncio.run(everyone())


def median(measure: Callable[[], float]) -> float:
    """Return the median of `ROUNDS` measurements."""
    return statistics.median(measure() for _ in range(ROUNDS))


def main() -> None:
    """Print one row per number of callers."""
    with tempfile.TemporaryDirectory(prefix="terrace-store-") as name:
        folder = Path(name)
        rows = Rows.begin(f"sqlite:///{folder / 'terrace.db'}", tenants=10, milli_gpu_per_tenant=TENANT_MILLI_GPU, now_ms=1)
        try:
            for callers in (1, 16, 64):
                bare = median(lambda: bare_commits_per_second(folder))
                figure = median(lambda callers=callers: submits_per_second(rows, callers=callers))  # type: ignore[misc]  # bound at once
                row = {
                    "bench": "store", "case": f"submits, {callers} callers, SQLite FULL", "figure": round(figure), "unit": "commands/s",
                    "peer": "bare SQLite, one insert a commit", "peer_figure": round(bare), "ratio": round(figure / bare, 2),
                    "note": "a submit writes a job, its class and an event",
                }  # fmt: skip
                print(json.dumps(row), flush=True)
        finally:
            rows.store.close()


if __name__ == "__main__":
    main()
