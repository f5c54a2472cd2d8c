"""A small world for decision tests: build nodes, quotas and jobs, decide, and state what must have happened.

`check()` decides and verifies what must always be true (design.md section 4) before any expectation is looked at; a
world that nobody checked fails its test, because a test that never decides cannot fail. The fixture `world` in
conftest.py sees to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from domain.jobs import Shape
from domain.reasons import Reason, ReasonCode
from domain.slices import DeviceMode, Flavor, Slice
from quotas.amount import UNLIMITED, Amount
from quotas.decay import Past
from quotas.tree import Fungibility, NodeKind, Preemption, Quota, QuotaNode, Tree
from scheduler.decision import nominate
from scheduler.decision.decide import decide
from scheduler.decision.forecast import forecast_jobs
from scheduler.decision.plan import Forecast, Plan
from scheduler.decision.snapshot import (
    CapacityReservation,
    ClassKey,
    Device,
    JobClass,
    MaintenanceWindow,
    Node,
    Nomination,
    PendingJob,
    Policy,
    Pool,
    RunningJob,
    Snapshot,
    from_rows,
)
from scheduler.decision.where import ANYWHERE, Where
from tests.decision.invariants import verify

HOUR_MS = 3_600_000
GIB = 1 << 30


def quota(gpus: int | None, *, borrow: int | None = None, lend: int | None = None) -> Quota:
    """Return a quota in whole GPUs; None means unlimited."""
    milli = [None if value is None else Amount(value * 1000) for value in (borrow, lend)]
    return Quota(UNLIMITED if gpus is None else Amount(gpus * 1000), *milli)


class World:
    """What a test says about the world. Every method that names something returns its name."""

    def __init__(self, *, now_ms: int = 0, policy: Policy | None = None) -> None:
        self.now_ms = now_ms
        self.policy = policy or Policy(fair_share_half_life_ms=0)
        self.nodes: list[Node] = []
        self.quota_nodes: dict[str, QuotaNode] = {}
        self.jobs: list[tuple[ClassKey, PendingJob]] = []
        self.running: list[RunningJob] = []
        self.nominations: Sequence[Nomination] = ()
        self.recent_preemptions: dict[Pool, list[int]] = {}
        self.past: Past | None = None
        self.reservations: list[CapacityReservation] = []
        self.maintenance: list[MaintenanceWindow] = []
        self.grace_ms = 0  # of every class
        self.was_checked = False
        self._seq = 0

    def node(self, name: str, *, gpus: int = 8, model: str = "h200", **other: object) -> str:
        devices = tuple(Device(index, model) for index in range(gpus))
        node = Node(name, "hanoi", gpu_model=model if gpus else None, devices=devices, cpu_milli=128_000, memory_bytes=1024 * GIB)
        self.nodes.append(replace(node, **other))  # type: ignore[arg-type]
        return name

    def cohort(self, name: str, *, parent: str | None = None, gpus: int = 0) -> str:
        self.quota_nodes[name] = QuotaNode(name, NodeKind.COHORT, parent, quotas={"h200": quota(gpus)})
        return name

    def tenant(
        self,
        name: str,
        gpus: int | None = None,
        *,
        parent: str | None = None,
        borrow: int | None = None,
        lend: int | None = None,
        weight: int = 1,
        models: Sequence[str] = ("h200",),
        preemption: Preemption | None = None,
        fungibility: Fungibility | None = None,
    ) -> str:
        quotas = {model: quota(gpus, borrow=borrow, lend=lend) for model in models}
        self.quota_nodes[name] = QuotaNode(
            name, NodeKind.TENANT, parent, Fraction(weight), quotas, preemption or Preemption(), fungibility or Fungibility()
        )
        return name

    def project(self, name: str, gpus: int | None = 0, *, parent: str) -> str:
        """A project; without GPUs of its own it uses its tenant's quota."""
        self.quota_nodes[name] = QuotaNode(name, NodeKind.PROJECT, parent, quotas={"h200": quota(gpus)} if gpus else {})
        return name

    def job(
        self,
        *,
        gpus: int = 1,
        replicas: int = 1,
        tenant: str = "x",
        models: Sequence[str] = ("h200",),
        priority: int = 0,
        limit_ms: int = HOUR_MS,
        submitted_ms: int | None = None,
        cpus: int = 0,
        memory_gib: int = 0,
        sites: Sequence[str] = (),
        user: str | None = None,
        where: Where = ANYWHERE,
    ) -> str:
        self._ensure_tenant(tenant)
        shape = self._shape(gpus, replicas, models, cpus, memory_gib, sites)
        self._seq += 1
        pending = PendingJob(f"job-{self._seq}", self._seq, self.now_ms if submitted_ms is None else submitted_ms)
        self.jobs.append((ClassKey(tenant, shape, limit_ms, priority, user=user, where=where), pending))
        return pending.job

    def reserve(self, name: str, gpus: int, *, tenant: str = "x", start_ms: int = 0, end_ms: int = HOUR_MS) -> None:
        """Set devices of h200 aside for a tenant."""
        self.reservations.append(CapacityReservation(name, tenant, "h200", gpus * 1000, start_ms, end_ms))

    def maintain(self, *nodes: str, start_ms: int = 0, end_ms: int = HOUR_MS) -> None:
        """Close nodes for maintenance."""
        self.maintenance.append(MaintenanceWindow("service", nodes, start_ms, end_ms))

    def runs(
        self,
        on: Mapping[str, Sequence[int]],
        *,
        tenant: str = "x",
        model: str = "h200",
        started_ms: int | None = None,
        limit_ms: int = HOUR_MS,
        cpus: int = 0,
        priority: int = 0,
        **other: object,
    ) -> str:
        """Let a job run with one replica per node on the given devices. `other` are fields of RunningJob."""
        self._ensure_tenant(tenant)
        self._seq += 1
        counts = {len(devices) for devices in on.values()}
        assert len(counts) == 1, "replicas are identical"
        slices = tuple(Slice(at, node, index, 1000) for at, (node, devices) in enumerate(on.items()) for index in devices)
        shape = self._shape(counts.pop(), len(on), (model,), cpus, 0, ())
        since = self.now_ms if started_ms is None else started_ms
        job, lease = f"job-{self._seq}", f"lea-{self._seq}"
        held = RunningJob(job, 1, lease, tenant, shape, since, limit_ms, self._seq, since, model, slices, tuple(on), priority)
        self.running.append(replace(held, **other))  # type: ignore[arg-type]
        return job

    def _ensure_tenant(self, tenant: str) -> None:
        if tenant not in self.quota_nodes:
            self.tenant(tenant)

    def _shape(self, gpus: int, replicas: int, models: Sequence[str], cpus: int, memory_gib: int, sites: Sequence[str]) -> Shape:
        flavors = tuple(models) if gpus else ()
        return Shape(flavors, replicas, gpus, 1000, cpus * 1000, memory_gib * GIB, tuple(sites))

    def snapshot(self) -> Snapshot:
        models = {node.gpu_model for node in self.nodes if node.gpu_model} | {"h200"}
        classes: dict[ClassKey, list[PendingJob]] = {}
        for key, pending in sorted(self.jobs, key=lambda item: (item[1].submitted_ms, item[1].seq)):
            classes.setdefault(key, []).append(pending)
        return from_rows(
            now_ms=self.now_ms,
            policy=self.policy,
            nodes=self.nodes,
            flavors={model: Flavor(model, model, DeviceMode.WHOLE, 1000) for model in models},
            tree=Tree(self.quota_nodes.values()),
            running=self.running,
            classes=[JobClass(key, jobs, self.grace_ms) for key, jobs in classes.items()],
            nominations=self.nominations,
            recent_preemptions=self.recent_preemptions,
            past=self.past,
            capacity_reservations=self.reservations,
            maintenance_windows=self.maintenance,
        )

    def check(self) -> Plan:
        """Decide, verify what must always be true, and return the plan."""
        self.was_checked = True
        snapshot = self.snapshot()
        plan = decide(snapshot)
        assert plan == decide(snapshot), "the same snapshot gave two plans"
        verify(snapshot, plan)
        return plan

    def expect(self, job: str, *, on: str | Sequence[str]) -> None:
        """The job starts, its replicas on these nodes."""
        nodes = (on,) if isinstance(on, str) else tuple(on)
        starts = {start.job: start for start in self.check().starts}
        assert job in starts, f"{job} waits: {self.reason(job)}"
        assert tuple(dict.fromkeys(starts[job].nodes)) == nodes

    def expect_preempted(self, job: str, *victims: str) -> None:
        """The job waits for exactly these victims, in any order."""
        plan = self.check()
        assert sorted(item.job for item in plan.preemptions if item.beneficiary == job) == sorted(victims)
        assert job in {item.job for item in plan.nominations}, self.reason(job)

    def causes(self) -> dict[str, str]:
        """Return why each victim of the plan has to leave."""
        return {item.job: item.cause.value for item in self.check().preemptions}

    def follow(self, plan: Plan) -> None:
        """Let a plan come true: starts run, victims are told to leave, nominations are held."""
        keys = {pending.job: (key, pending) for key, pending in self.jobs}
        for start in plan.starts:
            key, pending = keys[start.job]
            self.running.append(
                RunningJob(
                    start.job,
                    start.attempt,
                    f"lea-{start.job}",
                    key.tenant,
                    key.shape,
                    self.now_ms,
                    key.limit_ms,
                    pending.seq,
                    pending.submitted_ms,
                    start.flavor,
                    start.slices,
                    start.nodes,
                    key.priority,
                    key.is_preemptible,
                )
            )
        started = {start.job for start in plan.starts}
        self.jobs = [item for item in self.jobs if item[1].job not in started]
        victims = {item.job for item in plan.preemptions}
        releases_ms = self.now_ms + self.policy.preemption_grace_ms
        self.running = [replace(job, releases_ms=releases_ms) if job.job in victims else job for job in self.running]
        self.nominations = plan.nominations

    def release(self) -> None:
        """Let everybody who was told to leave be gone, and queue them again with their submit time."""
        for job in [job for job in self.running if job.is_leaving]:
            self.running.remove(job)
            key = ClassKey(job.tenant, job.shape, job.limit_ms, job.priority, user=job.user, is_preemptible=job.is_preemptible)
            self.jobs.append((key, PendingJob(job.job, job.seq, job.submitted_ms, job.attempt + 1, True)))

    def expect_waiting(self, job: str, code: ReasonCode) -> Reason:
        """The job waits for this reason, which is returned."""
        reason = self.reason(job)
        assert reason.code is code, reason
        return reason

    def reason(self, job: str) -> Reason:
        plan = self.check()
        assert job not in {start.job for start in plan.starts}, f"{job} starts"
        for nomination in plan.nominations:
            if nomination.job == job:
                return nominate.reason(nomination)
        key = next(key for key, pending in self.jobs if pending.job == job)
        return next(item.reason for item in plan.reasons if item.class_key == key)

    def forecast(self, job: str, *, depth: int = 100) -> Forecast | None:
        return forecast_jobs(self.snapshot(), depth, plan=self.check()).get(job)
