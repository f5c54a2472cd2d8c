"""Jobs, their classes, attempts, archives and logs.

Owns the shape of what tenants submit and what became of it. Jobs are inserted by the API and moved by the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import CheckConstraint, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from domain.states import JobState, JobTarget


def _one_of(column: str, words: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(word)) for word in sorted(words))})"


class JobClass(SQLModel, table=True):
    """Jobs that are alike for the scheduler. Its newest answer for them lives here, once."""

    __tablename__ = "job_class"

    id: str = Field(primary_key=True)  # hash of the fields below
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    project_id: str = Field(foreign_key="project.id")
    shape: str  # JSON of domain.jobs.Shape
    limit_ms: int
    priority: int
    user_id: str | None = None  # the account whose jobs these are
    tier: str = "standard"  # its terms (grace, preemptible or not) hold for all of them
    place: str = "{}"  # JSON of what the job demands of its nodes beside its shape: labels, tolerated taints, sites, closeness
    reason_code: str | None = None
    reason_data: str | None = None  # JSON object
    reason_unblocks_when: str | None = None
    forecast_start_ms: int | None = None
    not_before_ms: int | None = None
    answered_at_ms: int | None = None


class Job(SQLModel, table=True):
    """What was submitted and where it is. `seq` is the order of arrival; `version` guards every change of state."""

    __tablename__ = "job"
    __table_args__ = (
        Index("job_open", "state", "seq"),
        Index("job_by_tenant", "tenant_id", "seq"),
        Index("job_by_tenant_and_state", "tenant_id", "state", "seq"),
        CheckConstraint(_one_of("state", JobState), name="job_state_known"),
        CheckConstraint(_one_of("target", JobTarget), name="job_target_known"),
        CheckConstraint("replicas >= 1", name="job_has_replicas"),
        CheckConstraint("limit_ms > 0", name="job_has_limit"),
        CheckConstraint("attempt >= 0", name="job_attempt_not_negative"),
    )

    seq: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    tenant_id: str = Field(foreign_key="tenant.id")
    project_id: str = Field(foreign_key="project.id")
    user_id: str = Field(foreign_key="account.id")
    class_id: str = Field(foreign_key="job_class.id", index=True)
    name: str | None = None
    state: str
    target: str = "run"
    version: int = 0
    priority: int = 0
    tier: str = Field(foreign_key="tier.name")
    flavors: str  # JSON list, in order of preference
    replicas: int
    slices_per_replica: int
    milli_gpu_per_slice: int = 1_000
    cpu_milli_per_replica: int = 0
    memory_bytes_per_replica: int = 0
    limit_ms: int
    entrypoint: str  # JSON list of arguments
    environment: str = "{}"  # JSON object
    archive_sha256: str | None = None
    requirements: str | None = None  # text of requirements.txt
    maximum_attempts: int = 3
    attempt: int = 0  # number of the current or last attempt; 0 before the first
    submitted_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    exit_code: int | None = None
    failure_class: str | None = None
    message: str | None = None
    progress: str | None = None  # JSON: newest progress report of the current attempt
    was_preempted: bool = False  # an attempt was stopped for another job: it does not fight back
    failed_attempts: int = 0  # those that count towards maximum_attempts: not the ones stopped for another job or by a drain
    checkpoint_at_ms: int | None = None  # when the current attempt last said that its work is saved


class Attempt(SQLModel, table=True):
    """One run of a job under one lease."""

    __tablename__ = "attempt"

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    number: int = Field(primary_key=True)
    lease_id: str = Field(unique=True, foreign_key="lease.id")
    created_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    outcome: str | None = None  # a LeaseEndCause
    exit_code: int | None = None
    failure_class: str | None = None
    message: str | None = None


class Blob(SQLModel, table=True):
    """An uploaded archive, known by the SHA-256 of its bytes and private to its tenant. The bytes lie beside the database."""

    __tablename__ = "blob"

    tenant_id: str = Field(primary_key=True, foreign_key="tenant.id")
    sha256: str = Field(primary_key=True)
    size_bytes: int
    created_at_ms: int


class LogChunk(SQLModel, table=True):
    """A piece of an attempt's output. `start_offset` counts bytes of output since the attempt began."""

    __tablename__ = "log_chunk"

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    attempt: int = Field(primary_key=True)
    start_offset: int = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
