"""What the scheduler keeps beside leases: the policy, nominations, the calendar, and the memory of fair sharing.

Owns the shape of these rows. Operators write the policy and the calendar through the API; the leading scheduler writes the rest.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel


class SchedulingPolicy(SQLModel, table=True):
    """The operator's choices, one row named `fleet`. Fields that the row does not name have the product's defaults."""

    __tablename__ = "scheduling_policy"

    name: str = Field(primary_key=True)
    choices: str = "{}"  # JSON object: fields of scheduler.decision.snapshot.Policy
    set_at_ms: int


class Nomination(SQLModel, table=True):
    """Slices held for a queued job whose victims are leaving. `position` is the order in which they were nominated."""

    __tablename__ = "nomination"
    __table_args__ = (Index("nomination_in_order", "position"),)

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    attempt: int
    class_id: str = Field(foreign_key="job_class.id")
    position: int
    flavor: str | None = Field(default=None, foreign_key="flavor.name")  # NULL for jobs without a GPU
    slices: str  # JSON list of [replica, device_id, milli_gpu]
    node_ids: str  # JSON list, one per replica
    victims: str  # JSON list of job ids
    releases_at_ms: int
    expires_at_ms: int


class CapacityReservation(SQLModel, table=True):
    """Devices set aside for a tenant, with all of its projects, in a window that may recur in its time zone."""

    __tablename__ = "capacity_reservation"
    __table_args__ = (
        CheckConstraint("milli_gpu > 0", name="capacity_reservation_not_empty"),
        CheckConstraint("end_ms > start_ms", name="capacity_reservation_window_not_empty"),
    )

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    tenant_id: str = Field(foreign_key="tenant.id", index=True)
    flavor: str = Field(foreign_key="flavor.name")
    milli_gpu: int
    start_ms: int  # of the first occurrence
    end_ms: int
    recurrence: str | None = None  # JSON object of store.calendar.Recurrence; NULL = once
    created_at_ms: int
    cancelled_at_ms: int | None = None  # from here on it sets nothing aside
    set_aside_milli_gpu_ms: int = 0  # what it set aside until `counted_until_ms`
    unused_milli_gpu_ms: int = 0  # the part of it that its tenant did not hold
    counted_until_ms: int | None = None


class MaintenanceWindow(SQLModel, table=True):
    """A time in which nothing may run on some nodes; likewise it may recur."""

    __tablename__ = "maintenance_window"
    __table_args__ = (CheckConstraint("end_ms > start_ms", name="maintenance_window_not_empty"),)

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    node_ids: str  # JSON list
    start_ms: int
    end_ms: int
    recurrence: str | None = None
    created_at_ms: int
    cancelled_at_ms: int | None = None


class FairShareMemory(SQLModel, table=True):
    """What quota nodes borrowed in the past, decayed (quotas/decay.py): one row named `fleet`, written now and then."""

    __tablename__ = "fair_share_memory"

    name: str = Field(primary_key=True)
    half_life_ms: int
    sums: str  # JSON object: node -> kind -> sum; sums of bytes outgrow 64 bits
    observed_at_ms: int


class ForecastRecord(SQLModel, table=True):
    """The start that was forecast for a job when it was queued or first answered, and when it really started."""

    __tablename__ = "forecast_record"

    job_id: str = Field(primary_key=True, foreign_key="job.id")
    attempt: int = Field(primary_key=True)
    made_at_ms: int
    forecast_start_ms: int
    started_at_ms: int
