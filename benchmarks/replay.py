"""Kueue's published scalability workloads, replayed in real time through the live loop: SQLite, the fake executor, no HTTP.

The same world is first simulated by `scheduler.sim`, which is the peer: what the same decisions would take if nothing else cost time. Jobs
are submitted when their time has come, run for as long as the workload says, and are reported as agents would report them. At the end the
leases themselves are looked at: no queue may ever have held more than its quota and borrowing limit, no cohort more than its quotas.

Workloads: Kueue's `test/performance/scheduler/configs/{baseline,large-scale}/generator.yaml`. Their makespans there (CI, an API server and
real admission) are 351 s and 1,179 s; they are printed for the record, not as a peer in the same run. `--case baseline|large`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Connection, func, select

from benchmarks.rows import MODEL, Rows
from domain.jobs import Shape
from executors.base import Order
from executors.fake import FakeExecutor, Script
from scheduler.decision.snapshot import Policy
from scheduler.service import SchedulerSettings, clock
from scheduler.service.loop import Loop
from scheduler.sim.reading import read
from scheduler.sim.simulate import simulate
from store import tables
from store.cohorts import CreateCohort
from store.identity import CreateTenant, CreateUser
from store.jobs import NewJob, SubmitJobs, Submitter, class_key
from store.policy import SetPolicy
from store.quota_rules import SetRules
from store.quotas import SetQuota

TICK_SECONDS = 0.02
GPUS_PER_NODE = 200  # so that quota alone decides, as in Kueue's workload, which places nothing
SECONDS_MAXIMUM = 800.0
LIMIT_MS = 60_000
POLICY = {"fair_sharing": False, "fair_share_half_life_ms": 0, "victims": "kueue", "placement": "first_fit"}
RULES = {"reclaim_within_cohort": "any", "within_tenant": "lower_priority"}


@dataclass(frozen=True)
class Kind:
    """One kind of job of every queue: `count` of `gpus` for `run_ms`, one every `every_ms`."""

    name: str
    count: int
    gpus: int
    run_ms: int
    priority: int
    every_ms: int


@dataclass(frozen=True)
class Workload:
    """Cohorts of equal queues."""

    name: str
    cohorts: int
    queues: int  # in each cohort
    kinds: tuple[Kind, ...]
    kueue_seconds: int
    quota: int = 20
    borrowing: int = 100


WORKLOADS = {
    "baseline": Workload(
        "baseline",
        5,
        6,
        (Kind("small", 350, 1, 200, 50, 100), Kind("medium", 100, 5, 500, 100, 500), Kind("large", 50, 20, 1_000, 200, 1_200)),
        351,
    ),
    "large": Workload(
        "large",
        10,
        100,
        (Kind("small", 35, 1, 150, 50, 60), Kind("medium", 11, 5, 350, 100, 300), Kind("large", 4, 20, 700, 200, 700)),
        1_179,
    ),
}


def queues(workload: Workload) -> Iterator[tuple[str, str]]:
    """Yield (cohort, queue)."""
    for cohort in range(workload.cohorts):
        for queue in range(workload.queues):
            yield f"c{cohort}", f"c{cohort}q{queue}"


def scenario(workload: Workload) -> str:
    """Return the workload as a scenario file."""
    nodes = -(-workload.cohorts * workload.queues * workload.quota // GPUS_PER_NODE) + 1
    content = {
        "scenario": 1,
        "policy": {
            "fair_sharing": False, "fair_share_half_life": 0, "victims": "kueue", "placement": "first_fit", "min_runtime": 0,
            "preemption_grace": 0, "default_limit": LIMIT_MS / 1_000,
        },
        "nodes": [{"name": "n", "count": nodes, "site": "hanoi", "gpu_model": MODEL, "gpus": GPUS_PER_NODE, "cpus": 4_096}],
        "cohorts": [{"name": f"c{number}"} for number in range(workload.cohorts)],
        "tenants": [
            {
                "name": queue, "parent": cohort, "quota": {MODEL: {"nominal": workload.quota, "borrow": workload.borrowing}},
                "preemption": {"reclaim_within_cohort": "any", "within_tenant": "lower_priority"},
            }
            for cohort, queue in queues(workload)
        ],
        "jobs": [
            {
                "id": f"{queue}-{kind.name}", "count": kind.count, "every": kind.every_ms / 1_000, "at": kind.every_ms / 1_000,
                "tenant": queue, "gpu_model": MODEL, "gpus": kind.gpus, "run": kind.run_ms / 1_000, "priority": kind.priority,
            }
            for _, queue in queues(workload)
            for kind in workload.kinds
        ],
    }  # fmt: skip
    return str(yaml.safe_dump(content))


@dataclass(frozen=True)
class Due:
    """A job to submit `at_ms` after the beginning."""

    at_ms: int
    queue: str
    kind: Kind
    number: int


def schedule(workload: Workload) -> list[Due]:
    """Return all jobs in order of time."""
    found = [
        Due((number + 1) * kind.every_ms, queue, kind, number)
        for _, queue in queues(workload)
        for kind in workload.kinds
        for number in range(kind.count)
    ]
    return sorted(found, key=lambda item: (item.at_ms, item.queue, item.kind.name))


def world(url: str, workload: Workload) -> tuple[Rows, dict[str, Submitter]]:
    """Make nodes, cohorts and queues."""
    now_ms = clock.now_ms()
    rows = Rows.begin(url, tenants=0, milli_gpu_per_tenant=0, now_ms=now_ms)
    rows.add_nodes(-(-workload.cohorts * workload.queues * workload.quota // GPUS_PER_NODE) + 1, devices=GPUS_PER_NODE)
    run = rows.store.run_blocking
    for number in range(workload.cohorts):
        run(CreateCohort(f"c{number}", None, 1_000, now_ms))
    submitters = {}
    base = SchedulerSettings().policy
    run(SetPolicy(base, POLICY, now_ms))
    for cohort, queue in queues(workload):
        run(CreateTenant(f"ten_{queue}", f"prj_{queue}", queue, cohort, 1_000, now_ms))
        run(CreateUser(f"usr_{queue}", "u", "member", queue, now_ms))
        limits = (workload.quota * 1_000, workload.borrowing * 1_000)
        run(SetQuota(f"quo_{queue}", queue, None, MODEL, *limits, None, now_ms - 1, None, now_ms))
        run(SetRules(queue, None, RULES, Policy(), now_ms))
        submitters[queue] = Submitter(f"ten_{queue}", queue, f"usr_{queue}", "u")
    return rows, submitters


class Replay:
    """One run in real time."""

    def __init__(self, workload: Workload, rows: Rows, submitters: dict[str, Submitter]) -> None:
        self.workload = workload
        self.rows = rows
        self.submitters = submitters
        self.run_ms: dict[str, int] = {}
        self.executor = FakeExecutor(rows.store, now_ms=clock.now_ms, script=self._script)
        settings = SchedulerSettings(node_lost_after_ms=10**9)  # nobody sends heartbeats here
        self.loop = Loop(rows.store, self.executor, settings)
        self.began_ms = 0

    def _script(self, order: Order) -> Script:
        return Script(duration_ms=self.run_ms[order.job_id])

    async def run(self) -> float:
        """Return the makespan in seconds."""
        stop = asyncio.Event()
        scheduler = asyncio.create_task(self.loop.run(stop))
        await asyncio.sleep(1.0)  # the lead is taken and the view built
        self.began_ms = clock.now_ms()
        try:
            async with asyncio.timeout(SECONDS_MAXIMUM):
                submitting = asyncio.create_task(self._submit(schedule(self.workload)))
                while not (submitting.done() and await self.rows.store.read(AllEnded())):
                    await self.executor.advance()
                    await asyncio.sleep(TICK_SECONDS)
                await submitting
        finally:
            stop.set()
            await scheduler
        last_ms = await self.rows.store.read(LastEnd())
        return (last_ms - self.began_ms) / 1_000

    async def _submit(self, due: Sequence[Due]) -> None:
        at = 0
        while at < len(due):
            elapsed_ms = clock.now_ms() - self.began_ms
            ready: dict[str, list[NewJob]] = {}
            while at < len(due) and due[at].at_ms <= elapsed_ms:
                item, at = due[at], at + 1
                ready.setdefault(item.queue, []).append(self._job(item))
            await asyncio.gather(
                *(self.rows.store.run(SubmitJobs(self.submitters[queue], jobs, clock.now_ms(), True)) for queue, jobs in ready.items())
            )
            await asyncio.sleep(TICK_SECONDS)

    def _job(self, item: Due) -> NewJob:
        shape = Shape((MODEL,), 1, item.kind.gpus)
        key = class_key(f"ten_{item.queue}", f"prj_{item.queue}", shape, limit_ms=LIMIT_MS, priority=item.kind.priority, user_id="u")
        job_id = f"job_{item.queue}_{item.kind.name}_{item.number}"
        self.run_ms[job_id] = item.kind.run_ms
        return NewJob(job_id, key, shape, None, "default", "standard", ("true",), {}, None, None, 3)


@dataclass(frozen=True)
class AllEnded:
    """Whether every job succeeded and every lease is released."""

    def fetch(self, connection: Connection, /) -> bool:
        """Ask by indexes."""
        job, lease = tables.Job.__table__, tables.Lease.__table__  # type: ignore[attr-defined]
        open_jobs = select(func.count()).where(job.c.state.in_(("queued", "starting", "running", "held")))
        if connection.execute(open_jobs).scalar_one():
            return False
        return not connection.execute(select(func.count()).where(lease.c.released_at_ms.is_(None))).scalar_one()


@dataclass(frozen=True)
class LastEnd:
    """When the last lease ended."""

    def fetch(self, connection: Connection, /) -> int:
        """Return it."""
        lease = tables.Lease.__table__  # type: ignore[attr-defined]
        return int(connection.execute(select(func.max(lease.c.ended_at_ms))).scalar_one())


@dataclass(frozen=True)
class Held:
    """Every lease: (tenant, milli-GPU, granted, released)."""

    def fetch(self, connection: Connection, /) -> list[tuple[str, int, int, int]]:
        """Return them."""
        lease = tables.Lease.__table__  # type: ignore[attr-defined]
        rows = connection.execute(select(lease.c.tenant_id, lease.c.milli_gpu, lease.c.granted_at_ms, lease.c.released_at_ms))
        return [(row[0], row[1], row[2], row[3]) for row in rows]


def violations(workload: Workload, held: Sequence[tuple[str, int, int, int]]) -> int:
    """Count the instants at which a queue held more than quota and borrowing, or a cohort more than its quotas."""
    limits = {f"ten_{queue}": (workload.quota + workload.borrowing) * 1_000 for _, queue in queues(workload)}
    limits |= {cohort: workload.queues * workload.quota * 1_000 for cohort, _ in queues(workload)}
    cohort_of = {f"ten_{queue}": cohort for cohort, queue in queues(workload)}
    changes = []
    for tenant, milli_gpu, granted_ms, released_ms in held:
        changes += [(granted_ms, 1, tenant, milli_gpu), (released_ms, 0, tenant, -milli_gpu)]  # what is released is free at that instant
    now: dict[str, int] = {}
    count = 0
    for _, _, tenant, change in sorted(changes):
        for name in (tenant, cohort_of[tenant]):
            now[name] = now.get(name, 0) + change
            count += change > 0 and now[name] > limits[name]
    return count


def measure(workload: Workload) -> dict[str, Any]:
    """Simulate and replay one workload; return its row."""
    began = time.perf_counter()
    simulated = simulate(read(scenario(workload)), stopwatch=time.perf_counter_ns, rss_peak_bytes=lambda: 0)["metrics"]
    simulated_seconds, wall_seconds = simulated["makespan_seconds"], time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="terrace-replay-") as folder:
        rows, submitters = world(f"sqlite:///{Path(folder) / 'terrace.db'}", workload)
        replay = Replay(workload, rows, submitters)
        try:
            seconds = asyncio.run(replay.run())
            held = rows.store.read_blocking(Held())
        finally:
            rows.store.close()
    jobs = len(schedule(workload))
    note = (
        f"{jobs} jobs, {len(held) - jobs} preempted; quota violations {violations(workload, held)}; "
        f"simulated in {wall_seconds:.1f} s = {jobs / wall_seconds:,.0f} jobs/s; Kueue's CI {workload.kueue_seconds} s, apart"
    )
    return {
        "bench": "replay", "case": f"Kueue {workload.name}, makespan", "figure": round(seconds, 1), "unit": "s",
        "peer": "terraced simulate, same world", "peer_figure": simulated_seconds, "ratio": round(seconds / simulated_seconds, 3),
        "note": note,
    }  # fmt: skip


def main() -> None:
    """Print a row per workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=sorted(WORKLOADS), help="only this one")
    options = parser.parse_args()
    for name, workload in WORKLOADS.items():
        if options.case in (None, name):
            print(json.dumps(measure(workload)), flush=True)


if __name__ == "__main__":
    main()
