"""Durable starts per second through the live loop: 8,000 one-GPU jobs onto 1,000 idle nodes of 8, with a null executor.

Counted from the first cycle after the jobs are released to the commit of the last lease. A start is a lease with its named slice, a device
claim, an attempt, an event and the job's new state, in SQLite at `synchronous=FULL`. The peer figure is Slurm's on such a machine with its
daemons stopped, 990 jobs/s, measured apart from this run. Prints a JSON row for `make bench`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Rows
from executors.fake import FakeExecutor, Script
from scheduler.service import clock
from scheduler.service.loop import Loop
from store.scheduling import LoadSnapshot

NODES = 1_000
DEVICES = 8
JOBS = NODES * DEVICES
TENANTS = 50
ROUNDS = 3
CYCLES_MAXIMUM = 50
SLURM_PER_SECOND = 990


async def starts_per_second(rows: Rows) -> tuple[float, int]:
    """Drive the loop until every job has a lease; return the rate and the number of cycles."""

    def now_ms() -> int:
        return rows.now_ms  # stands still, or the nodes would count as lost: nobody sends their heartbeats

    executor = FakeExecutor(rows.store, now_ms=now_ms, script=lambda _: Script(duration_ms=10**9))
    loop = Loop(rows.store, executor, now_ms=now_ms)
    seconds, cycles = 0.0, 0
    while cycles < CYCLES_MAXIMUM:
        began = time.perf_counter()
        await loop.step()
        seconds += time.perf_counter() - began
        cycles += 1
        loaded = await rows.store.read(LoadSnapshot(now_ms(), loop.settings.policy))
        if not loaded.snapshot.classes:
            break
    if len(loaded.snapshot.running) != JOBS:
        raise RuntimeError(f"{len(loaded.snapshot.running)} of {JOBS} jobs hold a lease")
    return JOBS / seconds, cycles


def measure(folder: Path) -> tuple[float, int]:
    """Measure once on a new database."""
    rows = Rows.begin(
        f"sqlite:///{folder / 'terrace.db'}", tenants=TENANTS, milli_gpu_per_tenant=JOBS // TENANTS * 1_000, now_ms=clock.now_ms()
    )
    try:
        rows.add_nodes(NODES, devices=DEVICES)
        rows.submit(JOBS)
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
