"""What a decision looks at: one frozen view of the fleet, the quotas and the queue at one moment.

Owns the shapes of the input of `decide` and `forecast`. Does not own how it is gathered: scheduler.service reads rows
or keeps an index up to date, scheduler.sim keeps a virtual world, and both hand in the same view. Nobody writes to a
snapshot; a decision works on copies (`fleet.copy()`, `tree.copy()`), which are cheap because both are compact.

Times are UTC milliseconds, GPUs milli-GPU. `tenant` always names a leaf of the quota tree: a tenant, or a project of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from domain.jobs import Shape
from domain.slices import Flavor, Slice
from quotas import tree as quota_tree
from quotas.amount import Amount
from quotas.decay import Past
from quotas.tree import Tree
from scheduler.decision.fit import Fleet
from scheduler.decision.nodes import Device, Node
from scheduler.decision.where import ANYWHERE, Where

__all__ = [
    "CapacityReservation", "ClassKey", "Device", "JobClass", "MaintenanceWindow", "Node", "Nomination", "PendingJob", "Placement",
    "Policy", "Pool", "RunningJob", "Snapshot", "Victims", "from_rows", "model_of", "order_classes", "usage_of",
]  # fmt: skip

Pool = tuple[str, str]  # site and GPU model

SECOND_MS = 1_000
HOUR_MS = 3_600 * SECOND_MS
DAY_MS = 86_400 * SECOND_MS


class Victims(StrEnum):
    """Which victim goes first among equals: the one that loses least work, or the newest, as in Kueue."""

    LEAST_LOST = "least_lost"
    KUEUE = "kueue"


class Placement(StrEnum):
    """Where a job goes among the places that fit."""

    FRAGMENTATION = "fragmentation"
    BEST_FIT = "best_fit"
    FIRST_FIT = "first_fit"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's choices. `backfill_depth` blocked jobs per GPU model hold a forward start time, 0 switches it off."""

    fair_sharing: bool = True
    fair_share_half_life_ms: int = 7 * DAY_MS
    backfill_depth: int = 100
    min_runtime_ms: int = 0
    preemption_grace_ms: int = 0
    victims: Victims = Victims.LEAST_LOST
    default_limit_ms: int = DAY_MS
    nomination_timeout_ms: int = 60 * SECOND_MS
    placement: Placement = Placement.FRAGMENTATION
    forecast_depth: int = 100
    spans_nodes: bool = True  # False: all replicas of a gang share one node
    preemptions_per_hour: int | None = None  # victims that a pool may lose within an hour; None = no limit


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that holds a lease. `nodes[i]` is the node of replica i; `flavor` is None for a job without GPUs.

    `limit_ms` is how long it may hold the lease: its time limit and, where its tier gives it one, the grace after it.
    """

    job: str
    attempt: int
    lease_id: str
    tenant: str
    shape: Shape
    started_ms: int
    limit_ms: int
    seq: int
    submitted_ms: int
    flavor: str | None
    slices: tuple[Slice, ...]
    nodes: tuple[str, ...]
    priority: int = 0
    is_preemptible: bool = True
    checkpoint_ms: int | None = None  # when work was last saved; None = all of the attempt would be lost
    user: str | None = None
    releases_ms: int | None = None  # set once it was told to stop: when its slices come back at the latest
    grace_ms: int | None = None  # between notice and end; None = the policy's preemption grace

    @property
    def is_leaving(self) -> bool:
        """True when it was told to stop. It holds devices and quota until it is gone, and is no victim twice."""
        return self.releases_ms is not None

    def ends_ms(self, now_ms: int) -> int:
        """When its slices come back at the latest. One that is overdue is taken to be late by up to twice as much.

        Its overrun is rounded up to a power of two, so the estimate stands still until it proves wrong: what others wait for does not
        change every moment, and short jobs can pass meanwhile. Example: due at 100 s, 5 s late: expected 8,192 ms after it was due.
        """
        due_ms = self.started_ms + self.limit_ms
        due_ms = due_ms if self.releases_ms is None else min(due_ms, self.releases_ms)
        return due_ms if due_ms > now_ms else due_ms + (1 << (now_ms - due_ms).bit_length())


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A queued job. `attempt` is the number that its next start gets; a preempted job keeps `seq` and `submitted_ms`.

    `was_preempted` is true once an attempt was stopped for another job: it does not fight back (victims.py).
    """

    job: str
    seq: int
    submitted_ms: int
    attempt: int = 1
    was_preempted: bool = False


@dataclass(frozen=True, slots=True)
class ClassKey:
    """What jobs must have in common to get the same answer."""

    tenant: str
    shape: Shape
    limit_ms: int
    priority: int = 0
    project: str = ""
    user: str | None = None
    is_preemptible: bool = True
    where: Where = ANYWHERE
    tier: str = ""  # jobs of one tier have one grace and are all preemptible or none


@dataclass(frozen=True, slots=True)
class JobClass:
    """The queued jobs of one class, ordered by submit time, then arrival sequence. Never empty.

    `grace_ms` is how long beyond the limit a job of the class may still hold its slices while it stops: the longest of their tiers.
    """

    key: ClassKey
    jobs: Sequence[PendingJob]
    grace_ms: int = 0


@dataclass(frozen=True, slots=True)
class CapacityReservation:
    """Devices set aside for a tenant, with all of its projects, in a window of time. A recurring one is several of one name."""

    name: str
    tenant: str
    flavor: str
    milli_gpu: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A time in which nothing may run on these nodes. What runs there already when it begins is not stopped by it."""

    name: str
    nodes: tuple[str, ...]
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Nomination:
    """Slices held for a job whose victims are leaving, until it starts or `expires_ms` passes."""

    job: str
    attempt: int
    slices: tuple[Slice, ...]
    expires_ms: int
    nodes: tuple[str, ...] = ()  # of each replica, also for a job without GPUs
    flavor: str | None = None
    victims: tuple[str, ...] = ()  # the jobs whose leaving it waits for
    releases_ms: int = 0  # when the last of them is gone at the latest
    key: ClassKey | None = None  # the job's class, so that it is found without a search


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that one decision may know. Make it with `from_rows`, or hand in a fleet and tree kept up to date.

    `tree` and `fleet` already count what `running` holds.
    """

    now_ms: int
    policy: Policy
    nodes: Sequence[Node]
    flavors: Mapping[str, Flavor]
    tree: Tree
    fleet: Fleet
    running: Sequence[RunningJob] = ()
    classes: Sequence[JobClass] = ()
    capacity_reservations: Sequence[CapacityReservation] = ()
    nominations: Sequence[Nomination] = ()
    recent_preemptions: Mapping[Pool, Sequence[int]] = field(default_factory=dict)  # when each pool lost victims within the last hour
    maintenance_windows: Sequence[MaintenanceWindow] = ()
    past: Past | None = None  # what every quota node borrowed, decayed; None counts the present only


def from_rows(
    *,
    now_ms: int,
    policy: Policy,
    nodes: Sequence[Node],
    flavors: Mapping[str, Flavor],
    tree: Tree,
    running: Sequence[RunningJob] = (),
    classes: Sequence[JobClass] = (),
    capacity_reservations: Sequence[CapacityReservation] = (),
    nominations: Sequence[Nomination] = (),
    recent_preemptions: Mapping[Pool, Sequence[int]] | None = None,
    past: Past | None = None,
    maintenance_windows: Sequence[MaintenanceWindow] = (),
) -> Snapshot:
    """Build a snapshot from plain rows. `tree` comes without usage: what `running` holds is charged to a copy of it."""
    charged = tree.copy()
    fleet = Fleet(nodes)
    for job in running:
        fleet.hold(job.shape, job.slices, job.nodes)
        if job.tenant in charged:
            charged.add(job.tenant, usage_of(job.shape, model_of(job.flavor, flavors)))
    return Snapshot(
        now_ms=now_ms,
        policy=policy,
        nodes=nodes,
        flavors=flavors,
        tree=charged,
        fleet=fleet,
        running=running,
        classes=classes,
        capacity_reservations=capacity_reservations,
        nominations=nominations,
        recent_preemptions=recent_preemptions or {},
        maintenance_windows=maintenance_windows,
        past=past,
    )


def model_of(flavor: str | None, flavors: Mapping[str, Flavor]) -> str | None:
    """Return the GPU model that a flavor is cut from; a name that is no flavor is taken for a model."""
    if flavor is None:
        return None
    known = flavors.get(flavor)
    return known.gpu_model if known else flavor


def usage_of(shape: Shape, model: str | None) -> dict[str, Amount]:
    """Return what a job of `shape` charges to its tenant's quota while it holds its lease."""
    usage: dict[str, Amount] = {}
    if model is not None and shape.slices:
        usage[model] = Amount(shape.milli_gpu)
    if shape.cpu_milli_per_replica:
        usage[quota_tree.RESOURCE_CPU] = Amount(shape.cpu_milli_per_replica * shape.replicas)
    if shape.memory_bytes_per_replica:
        usage[quota_tree.RESOURCE_MEMORY] = Amount(shape.memory_bytes_per_replica * shape.replicas)
    return usage


def order_classes(classes: Iterable[JobClass]) -> list[JobClass]:
    """Return classes by the arrival of their first job: the order in which ties are broken."""
    return sorted(classes, key=lambda job_class: (job_class.jobs[0].submitted_ms, job_class.jobs[0].seq))
