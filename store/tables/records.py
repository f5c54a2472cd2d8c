"""What happened: events, observations, idempotency records, the leader's fence, usage lines.

Owns the shape of the append-only rows and of the fence. Nothing here is edited but marks of progress (`applied_at_ms`, the fence).
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

CHANGES = (
    "cohort_changed", "device_changed", "maintenance_changed", "node_changed", "policy_changed", "quota_changed", "reservation_changed",
    "tenant_changed",
)  # fmt: skip
TELLS_OF_CHANGE = f"kind IN ({', '.join(repr(kind) for kind in CHANGES)})"


class Event(SQLModel, table=True):
    """A fact for people and streams. On PostgreSQL, the order of `id` is not the order of commit."""

    __tablename__ = "event"
    __table_args__ = (
        Index("event_by_job", "job_id", "id"),
        Index("event_by_tenant", "tenant_id", "id"),
        Index(  # what store/marks.py counts: few among many
            "event_of_change",
            "kind",
            "id",
            sqlite_where=text(TELLS_OF_CHANGE),
            postgresql_where=text(TELLS_OF_CHANGE),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    at_ms: int
    kind: str
    tenant_id: str | None = None
    job_id: str | None = None
    lease_id: str | None = None
    node_id: str | None = None
    data: str = "{}"  # JSON object
    inserted_at_us: int | None = None  # PostgreSQL's clock at the insert, drawn after `id` by the database itself; see store/events.py


class Observation(SQLModel, table=True):
    """What an agent saw, waiting for the scheduler to apply it. A batch that is sent twice is stored once."""

    __tablename__ = "observation"
    __table_args__ = (
        UniqueConstraint("node_id", "boot_id", "agent_seq", name="observation_once"),
        Index("observation_open", "applied_at_ms", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    node_id: str = Field(foreign_key="node.id")
    boot_id: str
    agent_seq: int
    kind: str  # started | progress | exited | gone | inventory | device_health | lost
    lease_id: str | None = None
    data: str = "{}"
    observed_at_ms: int
    received_at_ms: int
    applied_at_ms: int | None = None


class IdempotencyRecord(SQLModel, table=True):
    """The first answer to a creating request, replayed when the same key comes with the same body."""

    __tablename__ = "idempotency_record"

    user_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    route: str
    body_sha256: str
    status: int
    response: str
    created_at_ms: int = Field(index=True)


class Leader(SQLModel, table=True):
    """The fence: who leads, since when, and an epoch that only grows. A write under an old epoch is refused."""

    __tablename__ = "leader"

    name: str = Field(primary_key=True)
    holder: str
    epoch: int
    renewed_at_ms: int
    last_stamp_ms: int  # the newest time that a leader stamped; stamps never go backwards


class UsageLine(SQLModel, table=True):
    """One rated piece of one lease. Immutable; a correction is a new line that names the old one."""

    __tablename__ = "usage_line"
    __table_args__ = (
        UniqueConstraint("lease_id", "kind", "start_ms", name="usage_line_once"),
        Index("usage_line_by_tenant", "tenant_id", "end_ms"),
        Index("usage_line_by_end", "end_ms"),
        CheckConstraint("end_ms >= start_ms", name="usage_line_not_backwards"),
    )

    id: str = Field(primary_key=True)
    kind: str = "lease"  # lease | credit | correction
    corrects: str | None = None
    lease_id: str = Field(foreign_key="lease.id")
    tenant_id: str
    project_id: str
    user_id: str
    job_id: str
    flavor: str | None = None
    start_ms: int
    end_ms: int
    milli_gpu: int
    milli_gpu_ms: int  # quantity: milli_gpu x (end - start)
    price_id: str | None = None
    units_per_hour: int = 0
    slices: int = 0
    currency: str
    amount_units: int
    created_at_ms: int
