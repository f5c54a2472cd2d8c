"""The scenario format, version 1, as models: which fields there are, their units and defaults (docs/scenario.md).

Owns the shape of the whole format, what the core cannot decide yet included (support.py refuses that). Does not own what
needs more than one field to judge: names and references are checked in references.py. Unknown keys are errors everywhere.
Attribute names carry our units (`limit_ms`); the file's names (`limit`) are their aliases.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from quotas import amount
from quotas.amount import ZERO, Amount
from quotas.tree import RESOURCE_CPU, RESOURCE_MEMORY, BorrowPreempt, PreemptWithin, Quota, Reclaim, WhenCanBorrow, WhenCanPreempt
from scheduler.decision.snapshot import DAY_MS, SECOND_MS, Placement, Victims
from scheduler.decision.where import Within
from scheduler.sim import units
from scheduler.sim.units import (
    Count,
    DeviceIndex,
    DurationMs,
    Flag,
    LimitMs,
    MemoryBytes,
    MilliCpu,
    MilliGpu,
    Name,
    Priority,
    Replicas,
    TimeMs,
)

VERSION = 1
ANY_MODEL = "any"
NODES_MAXIMUM = 100_000
MODELS_MAXIMUM = 64


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Models = Annotated[tuple[Name, ...], BeforeValidator(_one_or_many), Field(min_length=1, max_length=MODELS_MAXIMUM)]


class Repack(_Part):
    """How much may be moved to make room."""

    max_moved_ratio: units.Ratio = Field(default_factory=lambda: Fraction(0))


class PolicyPart(_Part):
    """The operator's choices; every field has the product's default."""

    fair_sharing: Flag = True
    fair_share_half_life_ms: DurationMs = Field(7 * DAY_MS, alias="fair_share_half_life")
    backfill_depth: Annotated[int, units.integer(0, units.COUNT_MAXIMUM)] = 100
    min_runtime_ms: DurationMs = Field(0, alias="min_runtime")
    preemption_grace_ms: DurationMs = Field(0, alias="preemption_grace")
    victims: Victims = Victims.LEAST_LOST
    default_limit_ms: LimitMs = Field(DAY_MS, alias="default_limit")
    nomination_timeout_ms: DurationMs = Field(60 * SECOND_MS, alias="nomination_timeout")
    placement: Placement = Placement.FRAGMENTATION
    repack: Repack = Field(default_factory=Repack)
    preemptions_per_hour: Annotated[int, units.integer(0, units.COUNT_MAXIMUM)] | None = None


class NodePart(_Part):
    """One node, or `count` nodes NAME-0, NAME-1 and so on."""

    name: Name
    count: Count | None = None
    site: Name = "default"
    rack: Name | None = None
    gpu_model: Name | None = None
    gpus: Annotated[int, units.integer(0, units.GPUS_PER_REPLICA_MAXIMUM)] = 0
    cpu_milli: MilliCpu = Field(0, alias="cpus")
    memory_bytes: MemoryBytes = Field(0, alias="memory_gib")
    mig: tuple[Name, ...] | Literal["dynamic"] | None = None
    labels: dict[Name, Name] = Field(default_factory=dict)
    taints: tuple[Name, ...] = ()
    nvlink: Annotated[int, units.integer(1, units.GPUS_PER_REPLICA_MAXIMUM)] | None = None

    @model_validator(mode="after")
    def _gpus_have_a_model(self) -> NodePart:
        if self.gpus and self.gpu_model is None:
            raise ValueError("gpu_model is required where gpus is not 0")
        return self


class GpuQuota(_Part):
    """GPUs of one model that a node of the tree owns, may borrow and may lend. null = unlimited."""

    nominal: units.QuotaMilliGpu = ZERO
    borrow: units.QuotaMilliGpu | None = None
    lend: units.QuotaMilliGpu | None = None


class CpuQuota(_Part):
    """The same for CPUs."""

    nominal: units.QuotaMilliCpu = ZERO
    borrow: units.QuotaMilliCpu | None = None
    lend: units.QuotaMilliCpu | None = None


class MemoryQuota(_Part):
    """The same for GiB of memory."""

    nominal: units.QuotaMemoryBytes = ZERO
    borrow: units.QuotaMemoryBytes | None = None
    lend: units.QuotaMemoryBytes | None = None


class QuotaPart(_Part):
    """Quota by GPU model, beside it CPUs and memory."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, GpuQuota] = Field(init=False)

    cpus: CpuQuota | None = None
    memory_gib: MemoryQuota | None = None

    def models(self) -> tuple[str, ...]:
        """Return the GPU models that the quota names."""
        return tuple(self.__pydantic_extra__)

    def by_resource(self) -> dict[str, Quota]:
        """Return the quotas under the names that the quota tree uses, in our units."""
        parts: dict[str, GpuQuota | CpuQuota | MemoryQuota | None] = {
            **self.__pydantic_extra__,
            RESOURCE_CPU: self.cpus,
            RESOURCE_MEMORY: self.memory_gib,
        }
        return {
            resource: Quota(part.nominal, _bounded(part.borrow), _bounded(part.lend))
            for resource, part in parts.items()
            if part is not None
        }


def _bounded(limit: Amount | None) -> Amount | None:
    return None if limit is None or amount.is_unlimited(limit) else limit


class QuotaChange(QuotaPart):
    """A quota event: replaces the named models of one tenant or cohort."""

    tenant: Name


class CohortPart(_Part):
    """An inner node of the quota tree."""

    name: Name
    parent: Name | None = None
    weight: units.Weight = Field(default_factory=lambda: Fraction(1))
    quota: QuotaPart = Field(default_factory=QuotaPart)


class BorrowPreemptionPart(_Part):
    """Whether a borrowing job may stop others that borrow."""

    policy: BorrowPreempt = BorrowPreempt.NEVER
    max_priority: Priority | None = None


class PreemptionPart(_Part):
    """Kueue's three preemption policies."""

    within_tenant: PreemptWithin = PreemptWithin.NEVER
    reclaim_within_cohort: Reclaim = Reclaim.NEVER
    borrow_within_cohort: BorrowPreemptionPart = Field(default_factory=BorrowPreemptionPart)


class FungibilityPart(_Part):
    """Whether a job borrows or preempts on one flavor before it tries the next. The defaults are Kueue's."""

    when_can_borrow: WhenCanBorrow = WhenCanBorrow.BORROW
    when_can_preempt: WhenCanPreempt = WhenCanPreempt.TRY_NEXT_FLAVOR


class TenantPart(CohortPart):
    """A tenant under a cohort, or a project under its tenant."""

    preemption: PreemptionPart = Field(default_factory=PreemptionPart)
    flavor_fungibility: FungibilityPart = Field(default_factory=FungibilityPart)
    user_cap: units.QuotaMilliGpu | None = None


class SlicePart(_Part):
    """One slice of a running job, as `decide` prints it. `slice` and `start` are for MIG."""

    replica: Annotated[int, units.integer(0, units.REPLICAS_MAXIMUM)]
    node: Name
    device: DeviceIndex
    milli_gpu: Annotated[int, units.integer(1, units.MILLI)]
    slice: Name | None = None
    start: Annotated[int, units.integer(0, units.GPUS_PER_REPLICA_MAXIMUM)] | None = None


class WorkPart(_Part):
    """What running and queued jobs have in common. GPUs, CPUs and memory are per replica."""

    id: Name
    tenant: Name
    user: Name | None = None
    replicas: Replicas = 1
    milli_gpu: MilliGpu = Field(units.MILLI, alias="gpus")
    slice: Name | None = None
    gpu_model: Models = (ANY_MODEL,)
    cpu_milli: MilliCpu = Field(0, alias="cpus")
    memory_bytes: MemoryBytes = Field(0, alias="memory_gib")
    site: Name | None = None
    sites: Models | None = None
    deny_sites: tuple[Name, ...] = ()
    prefer_sites: tuple[Name, ...] = ()
    node_labels: dict[Name, Name] = Field(default_factory=dict)
    tolerates: tuple[Name, ...] = ()
    within: Within = Within.SITE
    run_ms: DurationMs | None = Field(None, alias="run")
    limit_ms: LimitMs | None = Field(None, alias="limit")
    priority: Priority = 0
    preemptible: Flag = True
    checkpoint_every_ms: LimitMs | None = Field(None, alias="checkpoint_every")

    @model_validator(mode="after")
    def _fields_agree(self) -> WorkPart:
        if self.site is not None and self.sites is not None:
            raise ValueError("names both site and sites")
        if self.slice is not None and self.milli_gpu % units.MILLI:
            raise ValueError("gpus counts slices where slice is given, so it must be an integer")
        if ANY_MODEL in self.gpu_model and len(self.gpu_model) > 1:
            raise ValueError("gpu_model: any stands alone")
        return self


class RunningPart(WorkPart):
    """A job that holds a lease at `now`. Without node and devices the core's placement chooses."""

    started_ms: TimeMs = Field(alias="started")
    at_ms: TimeMs | None = Field(None, alias="at")
    node: Name | None = None
    devices: tuple[DeviceIndex, ...] | None = None
    slices: tuple[SlicePart, ...] | None = None

    @model_validator(mode="after")
    def _place_is_given_once(self) -> RunningPart:
        if self.slices is not None and (self.node is not None or self.devices is not None):
            raise ValueError("slices already name nodes and devices")
        if self.devices is not None and self.node is None:
            raise ValueError("devices need a node")
        if self.node is not None and self.replicas > 1:
            raise ValueError("a gang of several replicas names its places by slices")
        return self


class JobPart(WorkPart):
    """A job submitted at `at`, or `count` of them, `every` seconds apart."""

    at_ms: TimeMs | None = Field(None, alias="at")
    depends_on: tuple[Name, ...] = ()
    count: Count | None = None
    every_ms: DurationMs = Field(0, alias="every")


class WindowPart(_Part):
    """A span of time, once or again every so often until some time."""

    name: Name
    start_ms: TimeMs = Field(alias="start")
    end_ms: TimeMs = Field(alias="end")
    repeat_every_ms: LimitMs | None = Field(None, alias="repeat_every")
    repeat_until_ms: TimeMs | None = Field(None, alias="repeat_until")

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> WindowPart:
        if self.end_ms <= self.start_ms:
            raise ValueError("end must lie after start")
        return self


class ReservationPart(WindowPart):
    """Devices set aside for a tenant in a window."""

    tenant: Name
    gpu_model: Name
    milli_gpu: units.QuotaMilliGpu = Field(alias="gpus")


class MaintenancePart(WindowPart):
    """A window in which nothing may run on these nodes."""

    nodes: tuple[Name, ...] = Field(min_length=1)


class EventPart(_Part):
    """Something that happens to a node, a device or a quota. Exactly one of them per event."""

    at_ms: TimeMs = Field(alias="at")
    drain: Name | None = None
    undrain: Name | None = None
    fail: Name | None = None
    recover: Name | None = None
    device_fail: Name | None = None
    quota: QuotaChange | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> EventPart:
        said = [name for name in ("drain", "undrain", "fail", "recover", "device_fail", "quota") if getattr(self, name) is not None]
        if len(said) != 1:
            raise ValueError(f"needs exactly one of drain, undrain, fail, recover, device_fail and quota, has {len(said)}")
        return self


class GeneratePart(_Part):
    """Jobs from a trace file."""

    trace: Literal["openb", "gavel"]
    nodes: Name | None = None
    jobs: Name | None = None
    scale: units.Weight = Field(default_factory=lambda: Fraction(1))
    tenant: Name | None = None
    demand: units.Weight | None = None
    order: Name | None = None


class Scenario(_Part):
    """A whole file."""

    scenario: Annotated[int, units.integer(VERSION, VERSION)]
    now_ms: TimeMs = Field(0, alias="now")
    until_ms: TimeMs | None = Field(None, alias="until")
    seed: Annotated[int, units.integer(0, 2**63 - 1)] = 0
    policy: PolicyPart = Field(default_factory=PolicyPart)
    nodes: tuple[NodePart, ...] = ()
    cohorts: tuple[CohortPart, ...] = ()
    tenants: tuple[TenantPart, ...] = ()
    running: tuple[RunningPart, ...] = ()
    jobs: tuple[JobPart, ...] = ()
    capacity_reservations: tuple[ReservationPart, ...] = ()
    maintenance_windows: tuple[MaintenancePart, ...] = ()
    events: tuple[EventPart, ...] = ()
    generate: tuple[GeneratePart, ...] = ()
