"""What a decision answers: starts, preemptions, repartitions and one reason per class that waits.

Owns the shapes of the output of `decide`. A plan is a proposal: whoever applies it guards every start by what it assumed,
and a stale start is dropped alone. Times are UTC milliseconds, GPUs milli-GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from domain.reasons import Reason
from domain.slices import Slice
from scheduler.decision.snapshot import ClassKey, Nomination


class PreemptionCause(StrEnum):
    """Why a running job has to leave."""

    WITHIN_TENANT = "within_tenant"
    RECLAIM = "reclaim"
    FAIR_SHARE = "fair_share"
    BORROW = "borrow"
    CAPACITY_RESERVATION = "capacity_reservation"
    EVICTION = "eviction"


@dataclass(frozen=True, slots=True)
class Start:
    """Bind these slices to this attempt. `nodes[i]` is the node of replica i, also for a job without GPUs.

    `borrowed` is the part of this start above the tenant's own quota, per GPU model.
    """

    job: str
    attempt: int
    slices: tuple[Slice, ...]
    nodes: tuple[str, ...]
    flavor: str | None
    borrowed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preemption:
    """Stop a running job so that `beneficiary` can start."""

    job: str
    cause: PreemptionCause
    beneficiary: str


@dataclass(frozen=True, slots=True)
class Repartition:
    """Cut an empty device anew: the profiles that it shall hold, largest first."""

    node: str
    device_index: int
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassReason:
    """Why the jobs of a class that did not start are waiting."""

    class_key: ClassKey
    reason: Reason


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer to one snapshot, in the order in which it was decided.

    `nominations` is everything that is to be held for beneficiaries from now on; it replaces the snapshot's list.
    """

    starts: tuple[Start, ...] = ()
    preemptions: tuple[Preemption, ...] = ()
    repartitions: tuple[Repartition, ...] = ()
    reasons: tuple[ClassReason, ...] = ()
    nominations: tuple[Nomination, ...] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a class's first job starts at the latest known estimate, or a time before which it cannot. One of the two is set."""

    start_ms: int | None = None
    not_before_ms: int | None = None
