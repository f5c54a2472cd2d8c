"""Decisions of the core on 1,000 nodes of 8 GPUs: starts per second into an empty fleet, and the time of a pass over a full one.

Measures `decide` and `forecast` alone: snapshots are built before the clock starts. Each case runs several times; the figure is
the median. `python -m benchmarks.decision` prints one JSON row per figure.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from domain.jobs import Shape
from domain.slices import DeviceMode, Flavor
from quotas.amount import Amount
from quotas.tree import NodeKind, Quota, QuotaNode, Tree
from scheduler.decision.decide import decide
from scheduler.decision.forecast import forecast
from scheduler.decision.plan import Plan, Start
from scheduler.decision.snapshot import ClassKey, Device, JobClass, Node, PendingJob, Policy, RunningJob, Snapshot, from_rows

NODES = 1_000
GPUS_PER_NODE = 8
NODES_PER_RACK = 20
TENANTS = 50
HOUR_MS = 3_600_000
MODEL = "h200"
REPEATS = 5


def fleet() -> list[Node]:
    """Return the nodes, in racks of one site."""
    devices = tuple(Device(index, MODEL) for index in range(GPUS_PER_NODE))
    return [Node(f"n{at}", "hanoi", f"r{at // NODES_PER_RACK}", MODEL, devices, 128_000, 1 << 40) for at in range(NODES)]


def tree() -> Tree:
    """Return one cohort whose members own the fleet in equal parts and may borrow from one another."""
    nominal = Amount(NODES * GPUS_PER_NODE * 1_000 // TENANTS)
    tenants = [QuotaNode(f"t{at}", NodeKind.TENANT, "all", Fraction(1), {MODEL: Quota(nominal)}) for at in range(TENANTS)]
    return Tree([QuotaNode("all", NodeKind.COHORT), *tenants])


def queued(jobs: int, *, gpus: int, replicas: int = 1, shapes_per_tenant: int = 1) -> list[JobClass]:
    """Return `jobs` queued jobs spread over the tenants, in few or many classes."""
    classes: dict[ClassKey, list[PendingJob]] = {}
    for at in range(jobs):
        limit_ms = HOUR_MS + (at // TENANTS) % shapes_per_tenant
        key = ClassKey(f"t{at % TENANTS}", Shape((MODEL,), replicas, gpus), limit_ms)
        classes.setdefault(key, []).append(PendingJob(f"job-{at}", at, at))
    return [JobClass(key, pending) for key, pending in classes.items()]


def snapshot(classes: Sequence[JobClass], policy: Policy, running: Sequence[RunningJob] = ()) -> Snapshot:
    """Return a snapshot of the whole fleet."""
    return from_rows(
        now_ms=0,
        policy=policy,
        nodes=fleet(),
        flavors={MODEL: Flavor(MODEL, MODEL, DeviceMode.WHOLE, 1_000)},
        tree=tree(),
        running=running,
        classes=classes,
    )


def full(classes: Sequence[JobClass], policy: Policy, *, free_gpus_per_node: int = 0) -> Snapshot:
    """Return a snapshot whose fleet runs two jobs per node, so that about 2,000 leases end at different times."""
    half = (GPUS_PER_NODE - free_gpus_per_node) // 2
    filling = [job for size in (half, half) for job in _filling(size)]
    started = decide(snapshot(filling, policy))
    keys = {job.job: item.key for item in filling for job in item.jobs}
    running = [_lease(start, keys[start.job], at) for at, start in enumerate(started.starts)]
    return snapshot(classes, policy, running)


def _lease(start: Start, key: ClassKey, at: int) -> RunningJob:
    return RunningJob(
        job=start.job,
        attempt=1,
        lease_id=start.job,
        tenant=key.tenant,
        shape=key.shape,
        started_ms=-at,
        limit_ms=HOUR_MS,
        seq=at,
        submitted_ms=-at,
        flavor=start.flavor,
        slices=start.slices,
        nodes=start.nodes,
    )


def _filling(gpus: int) -> list[JobClass]:
    classes = queued(NODES, gpus=gpus)
    return [JobClass(replace(item.key, priority=gpus), item.jobs) for item in classes]


def seconds(action: Callable[[], object]) -> float:
    """Return the median time of `action`."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def report(case: str, figure: float, unit: str, note: str = "") -> None:
    """Print one row."""
    print(json.dumps({"bench": "decision", "case": case, "figure": round(figure, 2), "unit": unit, "note": note}), flush=True)


def starts_per_second(case: str, classes: Sequence[JobClass], policy: Policy) -> None:
    """Measure how fast an empty fleet fills."""
    world = snapshot(classes, policy)
    plan: Plan = decide(world)
    report(case, len(plan.starts) / seconds(lambda: decide(world)), "starts/s", f"{len(plan.starts)} starts of {count(classes)} queued")


def count(classes: Sequence[JobClass]) -> int:
    """Return the number of queued jobs."""
    return sum(len(item.jobs) for item in classes)


def pass_over_full_fleet(case: str, world: Snapshot) -> None:
    """Measure one decision that starts little or nothing."""
    plan = decide(world)
    note = f"{len(plan.starts)} starts, {len(world.classes)} classes, {count(world.classes)} queued, {len(world.running)} leases"
    report(case, seconds(lambda: decide(world)) * 1_000, "ms", note)


def main() -> None:
    """Print one row per case."""
    fair, plain = Policy(fair_share_half_life_ms=0), Policy(fair_sharing=False)
    starts_per_second("8,000 jobs of 1 GPU, fair sharing", queued(8_000, gpus=1), fair)
    starts_per_second("8,000 jobs of 1 GPU, fair sharing off", queued(8_000, gpus=1), plain)
    starts_per_second("100,000 jobs of 1 GPU queued, fair sharing", queued(100_000, gpus=1), fair)
    starts_per_second("8,000 jobs of 1 GPU in 1,000 classes, fair sharing", queued(8_000, gpus=1, shapes_per_tenant=20), fair)
    starts_per_second("250 gangs of 4 x 8 GPUs, fair sharing", queued(250, gpus=8, replicas=4), fair)
    many = queued(10_000, gpus=8, shapes_per_tenant=2)
    pass_over_full_fleet("pass over a full fleet, nothing can start", full(many, fair))
    small = queued(1_000, gpus=2)
    behind = [*queued(200, gpus=8), *(JobClass(replace(item.key, priority=-1), item.jobs) for item in small)]
    world = full(behind, fair, free_gpus_per_node=2)
    pass_over_full_fleet("pass that backfills behind 100 blocked jobs", world)
    report("forecast of 100 classes", seconds(lambda: forecast(world, 100)) * 1_000, "ms", "decision included")


if __name__ == "__main__":
    main()
