"""What operators set for the scheduler: cohorts, rules, the quota tree, imports, the calendar and the policy.

Owns their wire shapes and the limits of single fields. Amounts are milli-GPU, milli-CPU or bytes by resource; durations of the policy are
milliseconds; a share is counted in millionths. What rows decide (rings, capacity, what excludes what) the service checks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from terrace.models.common import Answer, Line, Name, Request, Text, Timestamp
from terrace.models.fleet import AMOUNT_MAXIMUM, Resource
from terrace.models.jobs import PRIORITY_BOUND

WEIGHT_MILLI_MAXIMUM = 1_000_000_000
DURATION_MS_MAXIMUM = 10**13  # about 317 years
COUNT_MAXIMUM = 1_000_000
MANIFESTS_MAXIMUM = 100
MANIFEST_LENGTH_MAXIMUM = 1 << 20
FLAVORS_MAPPED_MAXIMUM = 200
RESERVED_GPUS_MAXIMUM = 1_000_000
MAINTAINED_NODES_MAXIMUM = 1_000
REPEAT_DAYS_MAXIMUM = 366

Weight = Annotated[int, Field(ge=0, le=WEIGHT_MILLI_MAXIMUM)]
DurationMs = Annotated[int, Field(ge=0, le=DURATION_MS_MAXIMUM)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAXIMUM)]
TimeZone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", max_length=64)]
FileName = Annotated[Line, StringConstraints(min_length=1, max_length=255)]


class CohortCreate(Request):
    """A new inner node of the quota tree. `parent` names the cohort above."""

    name: Name
    parent: Name | None = None
    weight_milli: Weight = 1_000


class CohortSet(Request):
    """Fields of a cohort to change; absent ones stay. `parent` null makes it a root."""

    parent: Name | None = None
    weight_milli: Weight | None = None


class CohortAnswer(Answer):
    """A cohort."""

    id: str
    name: str
    parent: str | None = None
    weight_milli: int


class WithinTenant(StrEnum):
    """Whose running jobs a job may stop within its tenant."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    LOWER_OR_NEWER_EQUAL = "lower_or_newer_equal"


class Reclaim(StrEnum):
    """Whose running jobs in the cohort a job within its nominal quota may stop."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"
    ANY = "any"


class BorrowPreempt(StrEnum):
    """Whether a borrowing job may stop others that borrow."""

    NEVER = "never"
    LOWER_PRIORITY = "lower_priority"


class WhenCanBorrow(StrEnum):
    """Whether a job borrows in one flavor before it tries the next."""

    BORROW = "borrow"
    TRY_NEXT_FLAVOR = "try_next_flavor"


class WhenCanPreempt(StrEnum):
    """Whether a job preempts in one flavor before it tries the next."""

    PREEMPT = "preempt"
    TRY_NEXT_FLAVOR = "try_next_flavor"


class RulesSet(Request):
    """Rules of a tenant or project to change; absent ones stay. Null takes a threshold or a cap away."""

    within_tenant: WithinTenant = WithinTenant.NEVER
    reclaim_within_cohort: Reclaim = Reclaim.NEVER
    borrow_within_cohort: BorrowPreempt = BorrowPreempt.NEVER
    borrow_max_priority: Annotated[int, Field(ge=-PRIORITY_BOUND, le=PRIORITY_BOUND)] | None = None
    when_can_borrow: WhenCanBorrow = WhenCanBorrow.BORROW
    when_can_preempt: WhenCanPreempt = WhenCanPreempt.TRY_NEXT_FLAVOR
    user_cap_milli_gpu: Annotated[int, Field(ge=0, le=AMOUNT_MAXIMUM)] | None = None


class RulesAnswer(Answer):
    """The rules of a tenant, or of a project of it, whose own are all the defaults where it follows its tenant's."""

    tenant: str
    project: str | None = None
    within_tenant: WithinTenant
    reclaim_within_cohort: Reclaim
    borrow_within_cohort: BorrowPreempt
    borrow_max_priority: int | None = None
    when_can_borrow: WhenCanBorrow
    when_can_preempt: WhenCanPreempt
    user_cap_milli_gpu: int | None = None


class QuotaNodeResource(Answer):
    """One resource of a node of the tree.

    `nominal` null: the node has no quota of it. `subtree`: what it owns with what those below lend. `available` null: nobody limits it.
    """

    resource: str
    nominal: int | None = None
    borrowing_limit: int | None = None
    lending_limit: int | None = None
    subtree: int
    held: int
    borrowed: int
    available: int | None = None


class QuotaNodeAnswer(Answer):
    """A node of the quota tree as it stands. `share_micro` is null for a root; a cohort has no rules."""

    id: str
    name: str
    kind: str  # cohort | tenant | project
    parent_id: str | None = None
    depth: int
    weight_milli: int
    share_micro: int | None = None
    within_tenant: WithinTenant | None = None
    reclaim_within_cohort: Reclaim | None = None
    borrow_within_cohort: BorrowPreempt | None = None
    borrow_max_priority: int | None = None
    when_can_borrow: WhenCanBorrow | None = None
    when_can_preempt: WhenCanPreempt | None = None
    user_cap_milli_gpu: int | None = None
    resources: list[QuotaNodeResource]


class QuotaTreeAnswer(Answer):
    """The whole tree: parents before what stands below them."""

    nodes: list[QuotaNodeAnswer]


class Manifest(Request):
    """A file of Kueue's objects, as text."""

    name: FileName
    text: Annotated[Text, StringConstraints(max_length=MANIFEST_LENGTH_MAXIMUM)]


class QuotaImport(Request):
    """Kueue's Cohorts and ClusterQueues to make quotas of; `models` says which GPU model a ResourceFlavor is that is not called so."""

    manifests: Annotated[list[Manifest], Field(min_length=1, max_length=MANIFESTS_MAXIMUM)]
    models: Annotated[dict[Name, Resource], Field(max_length=FLAVORS_MAPPED_MAXIMUM)] = Field(default_factory=dict)
    gpu_resource: Annotated[Line, StringConstraints(min_length=1, max_length=253)] = "nvidia.com/gpu"
    is_dry_run: bool = False

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if sum(len(manifest.text) for manifest in self.manifests) > MANIFEST_LENGTH_MAXIMUM:
            raise ValueError(f"manifests: all texts together have at most {MANIFEST_LENGTH_MAXIMUM} characters")
        return self


class QuotaImportChange(Answer):
    """One thing that an import makes or changes: what, whose, and the fields with what they were and what they become."""

    action: str  # create | change
    kind: str  # cohort | tenant | quota | rules
    name: str
    resource: str | None = None
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)


class QuotaImportAnswer(Answer):
    """What an import does, or did. `left_out` names each field of the manifests that has no counterpart here."""

    is_applied: bool
    changes: list[QuotaImportChange]
    left_out: list[str]


class Repeat(Request):
    """Again every so many days at the same local time, as long as a window begins before `until`."""

    every_days: Annotated[int, Field(ge=1, le=REPEAT_DAYS_MAXIMUM)]
    until: Timestamp
    time_zone: TimeZone = "UTC"


class RepeatAnswer(Answer):
    """How a window recurs."""

    every_days: int
    until: Timestamp
    time_zone: str


class ReservationCreate(Request):
    """Whole devices of a flavor, set aside for a tenant in a window."""

    name: Name
    tenant: Name
    flavor: Annotated[Line, StringConstraints(min_length=1, max_length=63)]
    gpus: Annotated[int, Field(ge=1, le=RESERVED_GPUS_MAXIMUM)]
    start: Timestamp
    end: Timestamp
    repeat: Repeat | None = None


class ReservationAnswer(Answer):
    """A capacity reservation. What it set aside and what of it was not used is counted up to `counted_until`."""

    id: str
    name: str
    tenant: str
    flavor: str
    milli_gpu: int
    start: Timestamp
    end: Timestamp
    repeat: RepeatAnswer | None = None
    created_at: Timestamp
    cancelled_at: Timestamp | None = None
    set_aside_milli_gpu_ms: int
    unused_milli_gpu_ms: int
    counted_until: Timestamp | None = None


class MaintenanceCreate(Request):
    """A window in which nothing may run on these nodes."""

    name: Name
    nodes: Annotated[list[Name], Field(min_length=1, max_length=MAINTAINED_NODES_MAXIMUM)]
    start: Timestamp
    end: Timestamp
    repeat: Repeat | None = None


class MaintenanceAnswer(Answer):
    """A maintenance window."""

    id: str
    name: str
    nodes: list[str]
    start: Timestamp
    end: Timestamp
    repeat: RepeatAnswer | None = None
    created_at: Timestamp
    cancelled_at: Timestamp | None = None


class Victims(StrEnum):
    """Which of the victims of one priority goes first."""

    LEAST_LOST = "least_lost"
    KUEUE = "kueue"


class Placement(StrEnum):
    """Where slices go."""

    FRAGMENTATION = "fragmentation"
    BEST_FIT = "best_fit"
    FIRST_FIT = "first_fit"
    SPREAD = "spread"


class PolicySet(Request):
    """Fields of the scheduling policy to change; absent ones stay, null gives one back its default."""

    fair_sharing: bool | None = None
    fair_share_half_life_ms: DurationMs | None = None
    backfill_depth: Count | None = None
    min_runtime_ms: DurationMs | None = None
    preemption_grace_ms: DurationMs | None = None
    victims: Victims | None = None
    default_limit_ms: Annotated[int, Field(ge=1, le=DURATION_MS_MAXIMUM)] | None = None
    nomination_timeout_ms: DurationMs | None = None
    placement: Placement | None = None
    forecast_depth: Count | None = None
    preemptions_per_hour: Count | None = None


class PolicyAnswer(Answer):
    """The scheduling policy in force. `chosen` names the fields that an operator set; the others have the installation's values."""

    fair_sharing: bool
    fair_share_half_life_ms: int
    backfill_depth: int
    min_runtime_ms: int
    preemption_grace_ms: int
    victims: Victims
    default_limit_ms: int
    nomination_timeout_ms: int
    placement: Placement
    forecast_depth: int
    preemptions_per_hour: int | None = None
    chosen: list[str]
    set_at: Timestamp | None = None
