"""Durable starts per second through the live loop: 8,000 one-GPU jobs onto 1,000 idle nodes of 8, with a null executor.

Counted from the first cycle of a leading scheduler after the jobs were submitted to the commit of the last lease. A start is a lease with
its named slice, a device claim, an attempt, an event and the job's new state, in SQLite at `synchronous=FULL`. The peer is Slurm on
such a machine with its daemons stopped, 990 jobs/s, measured apart from this run. Prints a JSON row for `make bench`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rows import Rows
from executors.fake import FakeExecutor, Script
from scheduler.service import clock
from scheduler.service.loop import Loop
from store.commands import Command
from store.engine import Store
from store.plans import ApplyPlan
from store.scheduling import LoadSnapshot

NODES = 1_000
DEVICES = 8
JOBS = NODES * DEVICES
TENANTS = 50
ROUNDS = 3
CYCLES_MAXIMUM = 50
SLURM_PER_SECOND = 990


class Watched:
    """A store that remembers when a plan was last durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.committed_seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def run(self, command: Command[Any]) -> Any:
        """Do the command."""
        answer = await self._store.run(command)
        if isinstance(command, ApplyPlan):
            self.committed_seconds = time.perf_counter()
        return answer


async def starts_per_second(rows: Rows) -> tuple[float, int]:
    """Drive a loop that leads already until every job has a lease; return the rate and the number of cycles."""

    def now_ms() -> int:
        return rows.now_ms  # stands still, or the nodes would count as lost: nobody sends their heartbeats

    store: Any = Watched(rows.store)
    executor = FakeExecutor(rows.store, now_ms=now_ms, script=lambda _: Script(duration_ms=10**9))
    loop = Loop(store, executor, now_ms=now_ms)
    await loop.step()
    await asyncio.to_thread(rows.submit, JOBS)
    began, cycles = time.perf_counter(), 0
    for _ in range(CYCLES_MAXIMUM):
        await loop.step()
        cycles += 1
        loaded = await rows.store.read(LoadSnapshot(now_ms(), loop.settings.policy))
        if not loaded.snapshot.classes:
            break
    if len(loaded.snapshot.running) != JOBS:
        raise RuntimeError(f"{len(loaded.snapshot.running)} of {JOBS} jobs hold a lease")
    return JOBS / (store.committed_seconds - began), cycles


def measure(folder: Path) -> tuple[float, int]:
    """Measure once on a new database."""
    rows = Rows.begin(
        f"sqlite:///{folder / 'terrace.db'}", tenants=TENANTS, milli_gpu_per_tenant=JOBS // TENANTS * 1_000, now_ms=clock.now_ms()
    )
    try:
        rows.add_nodes(NODES, devices=DEVICES)
        return asyncio.run(starts_per_second(rows))
    finally:
        rows.store.close()


def main() -> None:
    """Print the median."""
    found = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="terrace-starts-") as folder:
            found.append(measure(Path(folder)))
    figure = statistics.median(rate for rate, _ in found)
    row = {
        "bench": "starts", "case": f"{JOBS} jobs of 1 GPU onto {NODES} x {DEVICES}", "figure": round(figure), "unit": "starts/s",
        "peer": "Slurm, daemons stopped", "peer_figure": SLURM_PER_SECOND, "ratio": round(figure / SLURM_PER_SECOND, 2),
        "note": f"{found[0][1]} cycles; rounds {', '.join(f'{rate:.0f}' for rate, _ in found)}",
    }  # fmt: skip
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
