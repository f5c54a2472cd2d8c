"""Leases, their slices, and the claims by which the database refuses to give a slice twice.

A lease is granted (slices bound, charged from here), running (entrypoint seen), ended (exit seen: charged until here)
and released (process tree gone and devices idle: claims deleted). A claim row exists exactly while a slice is held.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class Lease(SQLModel, table=True):
    """Named slices of named devices, bound to one attempt from start to end: the unit that is billed."""

    __tablename__ = "lease"
    __table_args__ = (
        UniqueConstraint("job_id", "attempt", name="lease_once_per_attempt"),
        Index(  # a job never runs twice at a time
            "lease_running_once",
            "job_id",
            unique=True,
            sqlite_where=text("ended_at_ms IS NULL"),
            postgresql_where=text("ended_at_ms IS NULL"),
        ),
        Index("lease_open", "released_at_ms"),
        Index("lease_by_tenant", "tenant_id", "ended_at_ms"),
        Index("lease_by_end", "ended_at_ms"),
        Index("lease_to_rate", "rated_at_ms", "ended_at_ms"),
        Index("lease_by_stop", "stop_requested_at_ms"),
        CheckConstraint("running_at_ms IS NULL OR running_at_ms >= granted_at_ms", name="lease_runs_after_grant"),
        CheckConstraint("running_at_ms IS NULL OR ended_at_ms IS NULL OR ended_at_ms >= running_at_ms", name="lease_ends_after_run"),
        CheckConstraint("ended_at_ms IS NULL OR ended_at_ms >= granted_at_ms", name="lease_ends_after_grant"),
        CheckConstraint("released_at_ms IS NULL OR ended_at_ms IS NOT NULL", name="lease_ended_before_release"),
        CheckConstraint("released_at_ms IS NULL OR released_at_ms >= ended_at_ms", name="lease_released_after_end"),
    )

    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    attempt: int
    tenant_id: str = Field(foreign_key="tenant.id")
    project_id: str = Field(foreign_key="project.id")
    user_id: str = Field(foreign_key="account.id")
    flavor: str | None = Field(default=None, foreign_key="flavor.name")  # NULL for leases without a GPU
    slices: int = 0
    milli_gpu: int = 0  # of the whole lease
    target: str = "run"  # run | stop
    stop_cause: str | None = None  # a LeaseEndCause, set with target = stop
    stop_requested_at_ms: int | None = None
    preemption_cause: str | None = None  # a PreemptionCause, set with stop_cause preempted or reclaimed
    beneficiary_job_id: str | None = None  # the job that it was stopped for
    token: str  # Ray's token for this lease
    limit_ms: int
    grace_ms: int
    handle: str | None = None  # JSON, the executor's
    granted_at_ms: int
    running_at_ms: int | None = None
    ended_at_ms: int | None = None
    released_at_ms: int | None = None
    end_cause: str | None = None
    failure_class: str | None = None
    rated_at_ms: int | None = None


class LeaseSlice(SQLModel, table=True):
    """One slice of a lease; kept for ever, because bills name it."""

    __tablename__ = "lease_slice"

    lease_id: str = Field(primary_key=True, foreign_key="lease.id")
    ordinal: int = Field(primary_key=True)
    replica: int
    node_id: str = Field(foreign_key="node.id")
    device_id: str = Field(foreign_key="device.id", index=True)
    mode: str
    milli_gpu: int
    profile: str | None = None
    start_cell: int = 0


class DeviceClaim(SQLModel, table=True):
    """A held cell of a device. One row per (device, cell) while open; the mode must be the device's.

    A whole slice claims cell 0 of a device in mode `whole`; a MIG slice claims each of its memory cells of a device in mode `mig`. The
    foreign key on (device, mode) keeps the two from mixing and the mode from changing under an open lease.
    """

    __tablename__ = "device_claim"
    __table_args__ = (
        ForeignKeyConstraint(["device_id", "mode"], ["device.id", "device.mode"], name="claim_fits_device_mode"),
        ForeignKeyConstraint(["lease_id", "ordinal"], ["lease_slice.lease_id", "lease_slice.ordinal"], name="claim_of_slice"),
        CheckConstraint("cell >= 0", name="claim_cell_not_negative"),
        CheckConstraint("mode <> 'whole' OR cell = 0", name="claim_of_whole_device_is_cell_zero"),
        Index("claim_by_lease", "lease_id"),
    )

    device_id: str = Field(primary_key=True)
    cell: int = Field(primary_key=True)
    mode: str
    lease_id: str
    ordinal: int


class LeaseNode(SQLModel, table=True):
    """A lease's part on one node: what the node's agent pulls as its assignment, and how far it got."""

    __tablename__ = "lease_node"
    __table_args__ = (Index("lease_node_by_node", "node_id", "is_gone"),)

    lease_id: str = Field(primary_key=True, foreign_key="lease.id")
    node_id: str = Field(primary_key=True, foreign_key="node.id")
    role: str  # head | worker
    cpu_milli: int = 0
    memory_bytes: int = 0
    is_gone: bool = False  # the agent proved the process tree gone and the devices idle
