"""Jobs: submission, answers, reasons, estimates, logs and events.

Owns the wire shapes and the limits that hold for every tenant. What depends on rows (quotas, tiers, flavors) is checked by the service.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from terrace.models.common import Answer, Line, Name, Request, Text, Timestamp
from terrace.models.fleet import Word

REPLICAS_MAXIMUM = 1_024
GPUS_PER_REPLICA_MAXIMUM = 64
ARGUMENTS_MAXIMUM = 256
ARGUMENT_LENGTH_MAXIMUM = 8_192
ENVIRONMENT_MAXIMUM = 128
ENVIRONMENT_VALUE_LENGTH_MAXIMUM = 8_192
REQUIREMENTS_LENGTH_MAXIMUM = 65_536
LIMIT_SECONDS_MAXIMUM = 366 * 86_400
ATTEMPTS_MAXIMUM = 10
BATCH_MAXIMUM = 1_000
PRIORITY_BOUND = 1_000_000
SITES_MAXIMUM = 32
NODE_LABELS_MAXIMUM = 16
TOLERATES_MAXIMUM = 16

Argument = Annotated[Text, StringConstraints(max_length=ARGUMENT_LENGTH_MAXIMUM)]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
EnvironmentValue = Annotated[Text, StringConstraints(max_length=ENVIRONMENT_VALUE_LENGTH_MAXIMUM)]
Sites = Annotated[list[Name], Field(max_length=SITES_MAXIMUM)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Within(StrEnum):
    """How close together all replicas of a job must stand. `island` are GPUs of one node that NVLink joins."""

    SITE = "site"
    RACK = "rack"
    NODE = "node"
    ISLAND = "island"


class JobSpec(Request):
    """What a job asks for. `gpus` counts whole devices per replica; `flavors` is an order of preference (empty with gpus 0).

    It runs on one of `sites` (empty: any) and on none of `deny_sites`; `prefer_sites` are tried first, in their order. Its nodes carry all
    of `node_labels`, and no taint that it does not tolerate. `maximum_attempts` counts attempts that the platform failed; one that was
    stopped for another job or by a drain does not count.
    """

    name: Annotated[Line, StringConstraints(min_length=1, max_length=120)] | None = None
    project: Name = "default"
    entrypoint: Annotated[list[Argument], Field(min_length=1, max_length=ARGUMENTS_MAXIMUM)]
    replicas: Annotated[int, Field(ge=1, le=REPLICAS_MAXIMUM)] = 1
    gpus: Annotated[int, Field(ge=0, le=GPUS_PER_REPLICA_MAXIMUM)] = 1
    flavors: Annotated[list[Annotated[Line, StringConstraints(min_length=1, max_length=63)]], Field(max_length=16)] = Field(
        default_factory=list
    )
    cpu_milli: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 50)] = 0
    sites: Sites = Field(default_factory=list)
    deny_sites: Sites = Field(default_factory=list)
    prefer_sites: Sites = Field(default_factory=list)
    node_labels: Annotated[dict[Word, Word], Field(max_length=NODE_LABELS_MAXIMUM)] = Field(default_factory=dict)
    tolerates: Annotated[list[Word], Field(max_length=TOLERATES_MAXIMUM)] = Field(default_factory=list)
    within: Within = Within.SITE
    limit_seconds: Annotated[int, Field(ge=1, le=LIMIT_SECONDS_MAXIMUM)] | None = None
    tier: Name = "standard"
    priority: Annotated[int, Field(ge=-PRIORITY_BOUND, le=PRIORITY_BOUND)] = 0
    environment: Annotated[dict[EnvironmentName, EnvironmentValue], Field(max_length=ENVIRONMENT_MAXIMUM)] = Field(default_factory=dict)
    archive_sha256: Sha256 | None = None
    requirements: Annotated[Text, StringConstraints(max_length=REQUIREMENTS_LENGTH_MAXIMUM)] | None = None
    maximum_attempts: Annotated[int, Field(ge=1, le=ATTEMPTS_MAXIMUM)] = 3


class JobBatch(Request):
    """Several jobs in one durable step: all are accepted or none is."""

    jobs: Annotated[list[JobSpec], Field(min_length=1, max_length=BATCH_MAXIMUM)]


class ReasonAnswer(Answer):
    """Why jobs of this class wait, what would unblock them, and how old the answer is."""

    code: str
    data: dict[str, Any] = Field(default_factory=dict)
    unblocks_when: str
    answered_at: Timestamp | None = None


class ForecastAnswer(Answer):
    """When jobs of this class start at the latest known estimate, or the earliest time before which they cannot."""

    start_at: Timestamp | None = None
    not_before: Timestamp | None = None
    computed_at: Timestamp | None = None


class SliceAnswer(Answer):
    """One slice that a lease holds."""

    replica: int
    node: str
    device_index: int
    device_uuid: str
    milli_gpu: int
    is_simulated: bool = False


class AttemptAnswer(Answer):
    """One run of a job under one lease."""

    number: int
    lease_id: str
    created_at: Timestamp
    started_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    outcome: str | None = None
    exit_code: int | None = None
    failure_class: str | None = None
    message: str | None = None
    slices: list[SliceAnswer] = Field(default_factory=list)


class JobAnswer(Answer):
    """A job as its tenant sees it."""

    id: str
    tenant: str
    project: str
    user: str
    name: str | None = None
    state: JobState
    target: str
    entrypoint: list[str]
    replicas: int
    gpus: int
    flavors: list[str]
    cpu_milli: int
    memory_bytes: int
    sites: list[str] = Field(default_factory=list)
    deny_sites: list[str] = Field(default_factory=list)
    prefer_sites: list[str] = Field(default_factory=list)
    node_labels: dict[str, str] = Field(default_factory=dict)
    tolerates: list[str] = Field(default_factory=list)
    within: str = Within.SITE.value
    limit_seconds: int
    tier: str
    priority: int
    attempt: int
    maximum_attempts: int
    submitted_at: Timestamp
    started_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    exit_code: int | None = None
    failure_class: str | None = None
    message: str | None = None
    progress: dict[str, Any] | None = None
    reason: ReasonAnswer | None = None
    forecast: ForecastAnswer | None = None


class JobDetail(JobAnswer):
    """A job with its attempts."""

    attempts: list[AttemptAnswer] = Field(default_factory=list)


class JobBatchAnswer(Answer):
    """The jobs of a batch, in the order of the request."""

    jobs: list[JobAnswer]


class EstimateAnswer(Answer):
    """What would happen to this job if it were submitted now. Nothing is kept."""

    starts_now: bool
    reason: ReasonAnswer | None = None
    forecast: ForecastAnswer | None = None
    currency: str
    hold_amount_units: int
    price_units_per_hour: int
    limit_seconds: int


class ArchiveAnswer(Answer):
    """An archive that the service holds."""

    sha256: str
    size_bytes: int


class EventAnswer(Answer):
    """A fact about a job, lease or node."""

    id: int
    at: Timestamp
    kind: str
    tenant: str | None = None
    job_id: str | None = None
    lease_id: str | None = None
    node: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class LogPiece(Answer):
    """Data of a `log` event: output of an attempt. The event's id is `next_offset`, in bytes since the attempt began."""

    attempt: int
    next_offset: int
    text: str


class LogEnd(Answer):
    """Data of the `end` event: the attempt has ended and all its output was sent. The job may go on with its next attempt."""

    attempt: int
    next_offset: int
    state: JobState
