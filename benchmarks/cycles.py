"""The live loop on a large fleet: 10,000 nodes of 8, 100,000 queued jobs of 200 shapes from 500 tenants, 1,000 ends and arrivals a round.

A round is everything until the loop has nothing left to do: news read, exits and releases applied, the decision, leases written durably
(SQLite, `synchronous=FULL`), answers of classes. The decision alone is given beside it: its aim is a p99 under 250 ms. The null executor's
own reports and the submits are not counted. Time is the measurement's own, so that a thousand jobs end in every round. Prints JSON rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import HOUR_MS, MODEL, Rows
from domain.jobs import Shape
from executors.base import Order
from executors.fake import FakeExecutor, Script
from scheduler.decision import decide as core
from scheduler.decision.plan import Plan
from scheduler.decision.snapshot import Snapshot
from scheduler.service import SchedulerSettings, clock
from scheduler.service.loop import Loop
from store.jobs import NewJob, SubmitJobs, class_key

DEVICES = 8
SHAPES = 200
ROUND_MS = 60_000
ROUNDS = 30
TOGETHER = 1_000  # jobs of one submit
STEPS_MAXIMUM = 20


class Fleet:
    """The world of one measurement."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.now_ms = rows.now_ms
        self.submitted = self.started = 0
        self.executor = FakeExecutor(rows.store, now_ms=lambda: self.now_ms, script=self._script)
        settings = SchedulerSettings(node_lost_after_ms=10**12)  # nobody sends heartbeats here
        self.loop = Loop(rows.store, self.executor, replace(settings, call_patience_ms=10_000), now_ms=lambda: self.now_ms)
        self.decided_seconds: list[float] = []

    def _script(self, _: Order) -> Script:
        """End a thousand jobs a round, in the order in which they started."""
        self.started += 1
        return Script(duration_ms=(self.started // 1_000 + 1) * ROUND_MS)

    def submit(self, jobs: int) -> None:
        """Queue jobs: 1 to 8 GPUs with 25 time limits, tenant after tenant."""
        left = jobs
        while left:
            submitter = self.rows.tenants[(self.submitted // 7) % len(self.rows.tenants)]
            count = min(left, 7)
            commands = [self._job(submitter.tenant_id, self.submitted + number) for number in range(count)]
            self.rows.store.run_blocking(SubmitJobs(submitter, commands, self.now_ms))
            self.submitted += count
            left -= count

    def _job(self, tenant_id: str, number: int) -> NewJob:
        shape = Shape((MODEL,), 1, number % DEVICES + 1)
        limit_ms = HOUR_MS * (1 + number // DEVICES % (SHAPES // DEVICES))
        key = class_key(tenant_id, tenant_id.replace("ten_", "prj_"), shape, limit_ms=limit_ms, priority=0)
        return NewJob(f"job_{number}", key, shape, None, "default", "standard", ("true",), {}, None, None, 3)

    async def round(self) -> float:
        """Let the loop step until it decides nothing new; return the seconds that it took."""
        seconds = 0.0
        for _ in range(STEPS_MAXIMUM):
            index = self.loop.keeper.index
            before = None if index is None else index.version
            began = time.perf_counter()
            await self.loop.step()
            seconds += time.perf_counter() - began
            index = self.loop.keeper.index
            if index is not None and index.version == before:
                return seconds
        return seconds


async def measure(fleet: Fleet, *, queued: int) -> tuple[list[float], list[float]]:
    """Fill the fleet, then let rounds go by; return the seconds of each round and of each decision in them."""
    plain = core.decide

    def timed(snapshot: Snapshot) -> Plan:
        began = time.thread_time()
        try:
            return plain(snapshot)
        finally:
            fleet.decided_seconds.append(time.thread_time() - began)

    core.decide = timed
    try:
        while True:
            started = fleet.started
            await fleet.round()
            if fleet.started == started:
                break
        index = fleet.loop.keeper.index
        waiting = 0 if index is None else sum(len(item.jobs) for item in index.loaded(fleet.now_ms).snapshot.classes)
        await asyncio.to_thread(fleet.submit, max(queued - waiting, 0))
        await fleet.round()
        fleet.decided_seconds.clear()
        rounds = []
        for _ in range(ROUNDS):
            fleet.now_ms += ROUND_MS
            await fleet.executor.advance()
            await asyncio.to_thread(fleet.submit, 1_000)
            rounds.append(await fleet.round())
        return rounds, list(fleet.decided_seconds)
    finally:
        core.decide = plain


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def row(case: str, seconds: Sequence[float], note: str) -> str:
    """Return one JSON row."""
    figure = round(percentile(seconds, 0.99) * 1_000)
    return json.dumps(
        {
            "bench": "cycles",
            "case": case,
            "figure": figure,
            "unit": "ms p99",
            "note": f"p50 {statistics.median(seconds) * 1_000:.0f} ms; {note}",
        }
    )


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="terrace-cycles-") as folder:
        share = options.nodes * DEVICES * 1_000 // 500 * 2
        rows = Rows.begin(f"sqlite:///{Path(folder) / 'terrace.db'}", tenants=500, milli_gpu_per_tenant=share, now_ms=clock.now_ms())
        try:
            rows.add_nodes(options.nodes, devices=DEVICES)
            fleet = Fleet(rows)
            fleet.submit(options.jobs)
            rounds, decisions = asyncio.run(measure(fleet, queued=options.jobs))
        finally:
            rows.store.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    case = f"{options.nodes:,} nodes x {DEVICES}, {options.jobs:,} queued, 1,000 ends and arrivals"
    print(
        row(f"{case}: the decision", decisions, f"CPU time of its thread; {len(decisions)} decisions; peak memory {peak_mib:,} MiB"),
        flush=True,
    )
    print(row(f"{case}: the whole round, durable", rounds, f"{ROUNDS} rounds"), flush=True)


if __name__ == "__main__":
    main()
