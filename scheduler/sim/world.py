"""The virtual world: what a scenario describes, kept up to date while time moves, and shown to the core as snapshots.

Owns nodes, quota tree, running and queued jobs, and the index over them (a live `Fleet` and `Tree`). Does not own time
or outcomes (simulate.py) or any rule. `snapshot()` costs little: the index is kept, not rebuilt, except after an event that
changes nodes or quotas. Arrival sequence is the order in the file: running jobs, then queued ones.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from domain.jobs import Shape
from domain.slices import MILLI_GPU_PER_DEVICE, DeviceHealth, DeviceMode, Flavor, Slice
from quotas import amount
from quotas.decay import Memory
from quotas.tree import Fungibility, NodeKind, Preemption, Quota, QuotaNode, Tree
from scheduler.decision import place
from scheduler.decision.fit import Fleet
from scheduler.decision.plan import Start
from scheduler.decision.snapshot import (
    HOUR_MS,
    ClassKey,
    Device,
    JobClass,
    Node,
    Nomination,
    PendingJob,
    Policy,
    Pool,
    RunningJob,
    Snapshot,
    model_of,
    usage_of,
)
from scheduler.decision.where import Where
from scheduler.sim import calendar, expansion
from scheduler.sim.calendar import Reserved
from scheduler.sim.problems import ScenarioError
from scheduler.sim.scenario import ANY_MODEL, PolicyPart, RunningPart, Scenario, WorkPart


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the scenario, with everything that does not change."""

    id: str
    seq: int
    key: ClassKey
    submitted_ms: int
    run_ms: int
    checkpoint_every_ms: int | None = None
    depends_on: tuple[str, ...] = ()


@dataclass(slots=True)
class NodeFlags:
    """Why a node takes no new jobs, and which of its devices failed."""

    is_drained: bool = False
    is_failed: bool = False
    failed_devices: set[int] = field(default_factory=set)


class World:
    """The state at one moment. Methods change it; the core only sees snapshots."""

    def __init__(self, scenario: Scenario) -> None:
        """Build the world at `scenario.now_ms`; `ScenarioError` when running jobs do not fit their devices."""
        self.policy = policy_of(scenario.policy)
        self.nodes = list(_nodes(scenario))
        self.flags = {node.name: NodeFlags() for node in self.nodes}
        models = dict.fromkeys(node.gpu_model for node in self.nodes if node.gpu_model is not None)
        self.models = tuple(models)
        self.quota_nodes = {node.name: node for node in _quota_nodes(scenario)}
        named = [*models, *(name for node in self.quota_nodes.values() for name in node.quotas)]
        self.flavors = {model: Flavor(model, model, DeviceMode.WHOLE, MILLI_GPU_PER_DEVICE) for model in dict.fromkeys(named)}
        self.tree = Tree(self.quota_nodes.values())
        self.fleet = Fleet(self.nodes)
        self.running: dict[str, RunningJob] = {}
        self.jobs: dict[str, Job] = {}
        self.nominations: Sequence[Nomination] = ()
        self.reservations = calendar.reservations(scenario)
        self.maintenance = calendar.maintenance(scenario)
        self.reserved = Reserved(self.reservations)
        self._preempted: dict[Pool, list[int]] = {}
        self._queues: dict[ClassKey, list[PendingJob]] = {}
        self._read_jobs(scenario)
        self._memory = self._first_memory(scenario.now_ms)

    def _read_jobs(self, scenario: Scenario) -> None:
        for part in scenario.running:
            job = self._job(part, part.id, part.at_ms if part.at_ms is not None else part.started_ms)
            self.jobs[job.id] = job
        # Jobs with a place go first, so that a job without one does not take it.
        indexed = list(enumerate(scenario.running))
        for at, part in [item for item in indexed if _has_place(item[1])] + [item for item in indexed if not _has_place(item[1])]:
            self._let_run(f"running[{at}]", part, self.jobs[part.id])
        depends_on = expansion.dependencies(scenario)
        for queued in scenario.jobs:
            first_ms = queued.at_ms if queued.at_ms is not None else scenario.now_ms
            for at, name in enumerate(expansion.names(queued.id, queued.count)):
                job = self._job(queued, name, first_ms + at * queued.every_ms)
                self.jobs[name] = replace(job, depends_on=depends_on.get(name, ()))

    def _job(self, part: WorkPart, name: str, submitted_ms: int) -> Job:
        limit_ms = part.limit_ms if part.limit_ms is not None else self.policy.default_limit_ms
        slices = part.milli_gpu // MILLI_GPU_PER_DEVICE
        models = self.models if part.gpu_model == (ANY_MODEL,) else tuple(dict.fromkeys(part.gpu_model))
        shape = Shape(
            models if slices else (),
            part.replicas,
            slices,
            MILLI_GPU_PER_DEVICE,
            part.cpu_milli,
            part.memory_bytes,
            expansion.sites(part),
        )
        where = Where(tuple(sorted(part.node_labels.items())), part.tolerates, part.deny_sites, part.prefer_sites, part.within)
        key = ClassKey(part.tenant, shape, limit_ms, part.priority, user=part.user, is_preemptible=part.preemptible, where=where)
        run_ms = part.run_ms if part.run_ms is not None else limit_ms
        return Job(name, len(self.jobs), key, submitted_ms, run_ms, part.checkpoint_every_ms)

    def _let_run(self, path: str, part: RunningPart, job: Job) -> None:
        slices, nodes, flavor = self._place_running(path, part, job.key.shape)
        running = RunningJob(
            job.id,
            1,
            job.id,
            job.key.tenant,
            job.key.shape,
            part.started_ms,
            job.key.limit_ms,
            job.seq,
            job.submitted_ms,
            flavor,
            slices,
            nodes,
            job.key.priority,
            job.key.is_preemptible,
            user=job.key.user,
        )
        self.fleet.hold(job.key.shape, slices, nodes)
        for name in nodes:
            at = self.fleet.layout.position[name]
            if self.fleet.free_cpu_milli[at] < 0 or self.fleet.free_memory_bytes[at] < 0:
                raise ScenarioError(path, f"needs more CPU or memory than {name} has left")
        self.tree.add(job.key.tenant, usage_of(job.key.shape, model_of(flavor, self.flavors)))
        self.running[job.id] = running

    def _place_running(self, path: str, part: RunningPart, shape: Shape) -> tuple[tuple[Slice, ...], tuple[str, ...], str | None]:
        if part.slices is not None:
            slices = tuple(Slice(piece.replica, piece.node, piece.device, piece.milli_gpu) for piece in part.slices)
            nodes = tuple(next(piece.node for piece in slices if piece.replica == replica) for replica in range(shape.replicas))
        elif part.devices is not None and part.node is not None:
            slices = tuple(Slice(0, part.node, device, MILLI_GPU_PER_DEVICE) for device in part.devices)
            nodes = (part.node,)
        else:
            return self._find_place(path, part, shape)
        model = self.nodes[self.fleet.layout.position[nodes[0]]].gpu_model if slices else None
        if model is not None and model not in shape.flavors:
            raise ScenarioError(f"{path}.gpu_model", f"{nodes[0]} has {model}")
        return slices, nodes, model

    def _find_place(self, path: str, part: RunningPart, shape: Shape) -> tuple[tuple[Slice, ...], tuple[str, ...], str | None]:
        where = self.jobs[part.id].key.where
        allowed = self.fleet.allowed(shape, where)
        if part.node is not None:
            allowed &= 1 << self.fleet.layout.position[part.node]
        options: Iterable[str | None] = shape.flavors if shape.slices else (None,)
        for model in options:
            members = place.place(self.fleet, shape, model=model, policy=self.policy, allowed=allowed, where=where)
            if members is not None:
                return self.fleet.slices(members), self.fleet.node_names(members), model
        raise ScenarioError(path, "does not fit beside the other running jobs")

    def _first_memory(self, now_ms: int) -> Memory | None:
        """Remember what the jobs that run at the beginning have held since they started; before that nothing is known."""
        half_life_ms = self.policy.fair_share_half_life_ms
        if not self.policy.fair_sharing or not half_life_ms:
            return None
        running = sorted(self.running.values(), key=lambda job: (job.started_ms, job.seq))
        memory = Memory(half_life_ms, running[0].started_ms if running else now_ms)
        tree = Tree(self.quota_nodes.values())
        for job in running:
            memory.observe(tree, job.started_ms)
            tree.add(job.tenant, usage_of(job.shape, model_of(job.flavor, self.flavors)))
        memory.observe(tree, now_ms)
        return memory

    def pass_time(self, from_ms: int, now_ms: int) -> None:
        """Let time pass while nothing changes, so that fair sharing remembers who held what, and reservations what was unused."""
        if self.reservations:
            self.reserved.pass_time(from_ms, now_ms, self._held)
        if self._memory is not None:
            self._memory.observe(self.tree, now_ms)

    def _held(self, tenant: str, model: str) -> int:
        return sum(job.shape.milli_gpu for job in self.running.values() if job.flavor == model and tenant in self.tree.path(job.tenant))

    def snapshot(self, now_ms: int) -> Snapshot:
        """Return what the core may know now."""
        classes = [JobClass(key, jobs) for key, jobs in self._queues.items()]
        return Snapshot(
            now_ms=now_ms,
            policy=self.policy,
            nodes=self.nodes,
            flavors=self.flavors,
            tree=self.tree,
            fleet=self.fleet,
            running=tuple(self._with_checkpoint(running, now_ms) for running in self.running.values()),
            classes=classes,
            nominations=self.nominations,
            recent_preemptions=self._preempted,
            capacity_reservations=self.reservations,
            maintenance_windows=self.maintenance,
            past=self._memory.past() if self._memory is not None else None,
        )

    def _with_checkpoint(self, running: RunningJob, now_ms: int) -> RunningJob:
        every_ms = self.jobs[running.job].checkpoint_every_ms
        if every_ms is None:
            return running
        return replace(running, checkpoint_ms=now_ms - (now_ms - running.started_ms) % every_ms)

    @property
    def has_queue(self) -> bool:
        """Tell whether any job waits to be decided."""
        return bool(self._queues)

    def waiting(self) -> Mapping[ClassKey, list[PendingJob]]:
        """Return the queued jobs by class."""
        return self._queues

    def enqueue(self, job: Job, *, attempt: int, was_preempted: bool = False) -> None:
        """Queue a job; one that comes back stands where its submit time puts it."""
        queue = self._queues.setdefault(job.key, [])
        pending = PendingJob(job.id, job.seq, job.submitted_ms, attempt, was_preempted)
        bisect.insort(queue, pending, key=lambda item: (item.submitted_ms, item.seq))

    def start(self, start: Start, *, now_ms: int) -> RunningJob:
        """Apply one start of a plan."""
        job = self.jobs[start.job]
        queue = self._queues[job.key]
        at = next(at for at, pending in enumerate(queue) if pending.job == start.job)
        del queue[at]
        if not queue:
            del self._queues[job.key]
        running = RunningJob(
            job.id,
            start.attempt,
            f"{job.id}/{start.attempt}",
            job.key.tenant,
            job.key.shape,
            now_ms,
            job.key.limit_ms,
            job.seq,
            job.submitted_ms,
            start.flavor,
            start.slices,
            start.nodes,
            job.key.priority,
            job.key.is_preemptible,
            user=job.key.user,
        )
        self.fleet.hold(job.key.shape, start.slices, start.nodes)
        self.tree.add(job.key.tenant, usage_of(job.key.shape, model_of(start.flavor, self.flavors)))
        self.running[job.id] = running
        return running

    def stop(self, job: str) -> RunningJob:
        """End a job's lease and free what it held."""
        running = self.running.pop(job)
        self.fleet.release(running.shape, running.slices, running.nodes)
        self.tree.remove(running.tenant, usage_of(running.shape, model_of(running.flavor, self.flavors)))
        return running

    def tell_to_leave(self, job: str, *, now_ms: int) -> RunningJob:
        """Give a victim notice: it holds what it holds until the grace is over."""
        running = replace(self.running[job], releases_ms=now_ms + self.policy.preemption_grace_ms)
        self.running[job] = running
        site = self.nodes[self.fleet.layout.position[running.nodes[0]]].site
        lost = self._preempted.setdefault((site, model_of(running.flavor, self.flavors) or ""), [])
        lost.append(now_ms)
        del lost[: bisect.bisect_right(lost, now_ms - HOUR_MS)]
        return running

    def change_nodes(self) -> None:
        """Make the nodes agree with their flags and index them anew."""
        self.nodes = [_with_flags(node, self.flags[node.name]) for node in self.nodes]
        self.fleet = Fleet(self.nodes)
        for running in self.running.values():
            self.fleet.hold(running.shape, running.slices, running.nodes)

    def change_quota(self, name: str, quotas: Mapping[str, Quota]) -> None:
        """Replace the named resources of one quota node; usage stays, even where it now lies above the quota."""
        node = self.quota_nodes[name]
        self.quota_nodes[name] = replace(node, quotas={**node.quotas, **quotas})
        self.tree = Tree(self.quota_nodes.values())
        for running in self.running.values():
            self.tree.add(running.tenant, usage_of(running.shape, model_of(running.flavor, self.flavors)))


def policy_of(part: PolicyPart) -> Policy:
    """Return the core's policy for the one in the file."""
    return Policy(
        fair_sharing=part.fair_sharing,
        fair_share_half_life_ms=part.fair_share_half_life_ms,
        backfill_depth=part.backfill_depth,
        min_runtime_ms=part.min_runtime_ms,
        preemption_grace_ms=part.preemption_grace_ms,
        victims=part.victims,
        default_limit_ms=part.default_limit_ms,
        nomination_timeout_ms=part.nomination_timeout_ms,
        placement=part.placement,
        preemptions_per_hour=part.preemptions_per_hour,
    )


def _has_place(part: RunningPart) -> bool:
    return part.slices is not None or part.devices is not None


def _nodes(scenario: Scenario) -> Iterable[Node]:
    for part in scenario.nodes:
        island = part.nvlink or max(part.gpus, 1)
        devices = tuple(Device(index, part.gpu_model, island=index // island) for index in range(part.gpus)) if part.gpu_model else ()
        for name in expansion.names(part.name, part.count):
            yield Node(
                name,
                part.site,
                part.rack or "",
                part.gpu_model if part.gpus else None,
                devices,
                part.cpu_milli,
                part.memory_bytes,
                labels=part.labels,
                taints=part.taints,
            )


def _quota_nodes(scenario: Scenario) -> Iterable[QuotaNode]:
    for cohort in scenario.cohorts:
        yield QuotaNode(cohort.name, NodeKind.COHORT, cohort.parent, cohort.weight, cohort.quota.by_resource())
    tenants = {part.name for part in scenario.tenants}
    for part in scenario.tenants:
        kind = NodeKind.PROJECT if part.parent in tenants else NodeKind.TENANT
        borrow = part.preemption.borrow_within_cohort
        preemption = Preemption(
            part.preemption.within_tenant, part.preemption.reclaim_within_cohort, borrow.policy, borrow.max_priority
        )  # fmt: skip
        choice = Fungibility(part.flavor_fungibility.when_can_borrow, part.flavor_fungibility.when_can_preempt)
        cap = None if part.user_cap is None or amount.is_unlimited(part.user_cap) else part.user_cap
        yield QuotaNode(part.name, kind, part.parent, part.weight, part.quota.by_resource(), preemption, choice, cap)


def _with_flags(node: Node, flags: NodeFlags) -> Node:
    devices = tuple(
        replace(device, health=DeviceHealth.FAULTY if device.index in flags.failed_devices else DeviceHealth.HEALTHY)
        for device in node.devices
    )
    return replace(node, devices=devices, is_schedulable=not (flags.is_drained or flags.is_failed))
