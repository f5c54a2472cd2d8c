"""Decisions of the core on 1,000 and 10,000 nodes of 8 GPUs: starts per second into an empty fleet, and the time of a pass over a busy one.

Measures `decide` and `forecast` alone: snapshots are built before the clock starts. Each case runs several times; the figure is
the median. Pure: no store, no threads. What runs, ends and arrives is drawn by a fixed seed. `python -m benchmarks.decision` prints one
JSON row per figure.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from domain.jobs import Shape
from domain.slices import DeviceMode, Flavor
from quotas.amount import Amount
from quotas.tree import NodeKind, Quota, QuotaNode, Tree
from scheduler.decision import place
from scheduler.decision.decide import decide
from scheduler.decision.forecast import forecast
from scheduler.decision.plan import Plan, Start
from scheduler.decision.snapshot import ClassKey, Device, JobClass, Node, PendingJob, Policy, RunningJob, Snapshot, from_rows, usage_of

NODES = 1_000
GPUS_PER_NODE = 8
NODES_PER_RACK = 20
TENANTS = 50
HOUR_MS = 3_600_000
MODEL = "h200"
REPEATS = 5


def fleet(nodes: int = NODES) -> list[Node]:
    """Return the nodes, in racks of one site."""
    devices = tuple(Device(index, MODEL) for index in range(GPUS_PER_NODE))
    return [Node(f"n{at}", "hanoi", f"r{at // NODES_PER_RACK}", MODEL, devices, 128_000, 1 << 40) for at in range(nodes)]


def tree(tenants: int = TENANTS, *, nodes: int = NODES, spare_quota: int = 0) -> Tree:
    """Return one cohort whose members own the fleet in equal parts and may borrow from one another. `spare_quota` fleets are for all."""
    gpus = Amount(nodes * GPUS_PER_NODE * 1_000)
    own = {MODEL: Quota(Amount(gpus // tenants))}
    members = [QuotaNode(f"t{at}", NodeKind.TENANT, "all", Fraction(1), own) for at in range(tenants)]
    return Tree([QuotaNode("all", NodeKind.COHORT, quotas={MODEL: Quota(Amount(gpus * spare_quota))}), *members])


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


# Replicas and GPUs of each, as in the published traces of GPU clusters: most jobs are small, most GPUs are in large ones.
SIZES = ((1, 1), (1, 1), (1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8))
LIMITS_MS = tuple(hours * HOUR_MS for hours in (1, 2, 4, 8, 24))


def shapes(count: int) -> list[tuple[Shape, int]]:
    """Return pairs of shape and time limit, each with CPUs and memory as its GPUs have them on a node."""
    chance = random.Random(1)
    found: dict[tuple[Shape, int], None] = {}
    while len(found) < count:
        replicas, gpus = chance.choice(SIZES)
        cpu_milli = gpus * chance.choice((4_000, 8_000, 12_000, 16_000))
        found[Shape((MODEL,), replicas, gpus, 1_000, cpu_milli, gpus * chance.choice((32, 64, 96)) << 30), chance.choice(LIMITS_MS)] = None
    return list(found)


class Busy:
    """A fleet on which jobs of many shapes run, with more of them queued, kept up to date as a live view is."""

    def __init__(self, *, nodes: int, tenants: int, queued: int, shapes_per_tenant: int, busy: float) -> None:
        """Fill `busy` of the fleet, then queue `queued` jobs; each tenant submits a few of 200 shapes."""
        self.chance = random.Random(2)
        known = shapes(200)
        self.keys = [
            ClassKey(f"t{tenant}", shape, limit_ms)
            for tenant in range(tenants)
            for shape, limit_ms in self.chance.sample(known, shapes_per_tenant)
        ]
        self.nodes = fleet(nodes)
        self.view = from_rows(
            now_ms=0,
            policy=Policy(fair_share_half_life_ms=0),
            nodes=self.nodes,
            flavors={MODEL: Flavor(MODEL, MODEL, DeviceMode.WHOLE, 1_000)},
            tree=tree(tenants, nodes=nodes, spare_quota=1),
        )
        self.queues: dict[ClassKey, list[PendingJob]] = {}
        self.running: dict[str, RunningJob] = {}
        self._count = 0
        self._fill(int(nodes * GPUS_PER_NODE * busy))
        self.arrive(queued)

    def _fill(self, gpus: int) -> None:
        free = self.view.fleet.free_total
        while (left := free[MODEL] - (len(self.nodes) * GPUS_PER_NODE - gpus)) > 0:
            key = self.chance.choice(self.keys)
            if key.shape.slices > left:
                key = replace(key, shape=Shape((MODEL,), 1, min(left, GPUS_PER_NODE)))
            allowed = self.view.fleet.allowed(key.shape)
            members = place.place(self.view.fleet, key.shape, model=MODEL, policy=self.view.policy, allowed=allowed)
            if members is not None:
                self._count += 1
                slices, names = self.view.fleet.slices(members), self.view.fleet.node_names(members)
                self._run(Start(f"job-{self._count}", 1, slices, names, MODEL), key, self._count, -self.chance.randrange(key.limit_ms))

    def _run(self, start: Start, key: ClassKey, seq: int, started_ms: int) -> None:
        self.view.fleet.hold(key.shape, start.slices, start.nodes)
        self.view.tree.add(key.tenant, usage_of(key.shape, MODEL))
        self.running[start.job] = RunningJob(
            start.job, 1, start.job, key.tenant, key.shape, started_ms, key.limit_ms, seq, started_ms, MODEL, start.slices, start.nodes
        )

    def arrive(self, jobs: int) -> None:
        """Queue jobs of random classes."""
        for _ in range(jobs):
            self._count += 1
            self.queues.setdefault(self.chance.choice(self.keys), []).append(PendingJob(f"job-{self._count}", self._count, self._count))

    def end(self, jobs: int) -> None:
        """End running jobs at random."""
        for name in self.chance.sample(list(self.running), min(jobs, len(self.running))):
            job = self.running.pop(name)
            self.view.fleet.release(job.shape, job.slices, job.nodes)
            self.view.tree.remove(job.tenant, usage_of(job.shape, MODEL))

    def snapshot(self) -> Snapshot:
        """Return what the core is shown now."""
        classes = [JobClass(key, jobs) for key, jobs in self.queues.items() if jobs]
        return replace(self.view, running=tuple(self.running.values()), classes=classes)

    def follow(self, plan: Plan) -> None:
        """Let the starts of a plan run."""
        waiting = {job.job: (key, job) for key, jobs in self.queues.items() for job in jobs}
        started = {start.job for start in plan.starts}
        for start in plan.starts:
            key, job = waiting[start.job]
            self._run(start, key, job.seq, 0)
        self.queues = {key: rest for key, jobs in self.queues.items() if (rest := [job for job in jobs if job.job not in started])}


def backlog_pass(case: str, *, busy: float) -> None:
    """Measure one decision over 10,000 mixed jobs, forward start times and backfill on, on 1,000 nodes of which `busy` is taken."""
    world = Busy(nodes=NODES, tenants=TENANTS, queued=10_000, shapes_per_tenant=40, busy=busy)
    pass_over_full_fleet(case, world.snapshot())


def churn(case: str, *, nodes: int, queued: int, tenants: int, shapes_per_tenant: int, cycles: int) -> None:
    """Measure the decision after 1,000 ends and arrivals, copies of tree and fleet included."""
    world = Busy(nodes=nodes, tenants=tenants, queued=queued, shapes_per_tenant=shapes_per_tenant, busy=1.0)
    times, starts = [], 0
    for _ in range(cycles):
        world.end(1_000)
        world.arrive(1_000)
        view = world.snapshot()
        began = time.perf_counter()
        plan = decide(view)
        times.append((time.perf_counter() - began) * 1_000)
        starts += len(plan.starts)
        world.follow(plan)
    note = f"{cycles} cycles, {starts / cycles:.0f} starts each, {len(world.queues)} classes, {len(world.running)} leases"
    report(f"{case}, p50", statistics.median(times), "ms", note)
    report(f"{case}, p99", sorted(times)[-1 - len(times) // 100], "ms", note)


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
    backlog_pass("10,000 mixed jobs queued, 8,000 GPUs busy", busy=1.0)
    backlog_pass("10,000 mixed jobs queued, 7,600 of 8,000 GPUs busy", busy=0.95)
    large = {"nodes": 10_000, "queued": 100_000, "tenants": 500, "cycles": 20}
    churn("10,000 nodes, 100,000 jobs queued, 1,000 ends and arrivals, 4 shapes per tenant", shapes_per_tenant=4, **large)
    churn("the same with 100 shapes per tenant", shapes_per_tenant=100, **large)


if __name__ == "__main__":
    main()
