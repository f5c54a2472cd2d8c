"""The rows that Terrace remembers, as SQLModel tables. Tables never leave the store.

Conventions: identifiers are text made by `domain.ids`; times are UTC milliseconds in `*_at_ms`; open-ended or unset
times are NULL; amounts of GPU are milli-GPU; money is integers in the currency's smallest accounted unit; JSON columns
hold canonical text. What the database can enforce it enforces: see `leases.DeviceClaim` for the first invariant of
the design. Grouped by what they describe: people, fleet, jobs, leases, scheduling, records.
"""

from sqlalchemy import BigInteger, Integer, String
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

from store.tables.fleet import Device, Flavor, Node, Price, Tier
from store.tables.jobs import Attempt, Blob, Job, JobClass, LogChunk
from store.tables.leases import DeviceClaim, Lease, LeaseNode, LeaseSlice
from store.tables.people import ApiKey, Project, Quota, QuotaNode, Tenant, User
from store.tables.records import Event, IdempotencyRecord, Leader, Observation, UsageLine
from store.tables.scheduling import (
    CapacityReservation,
    FairShareMemory,
    ForecastRecord,
    MaintenanceWindow,
    Nomination,
    SchedulingPolicy,
)

__all__ = [
    "ApiKey", "Attempt", "Blob", "CapacityReservation", "Device", "DeviceClaim", "Event", "FairShareMemory", "Flavor", "ForecastRecord",
    "IdempotencyRecord", "Job", "JobClass", "Leader", "Lease", "LeaseNode", "LeaseSlice", "LogChunk", "MaintenanceWindow", "Node",
    "Nomination", "Observation", "Price", "Project", "Quota", "QuotaNode", "SchedulingPolicy", "Tenant", "Tier", "UsageLine", "User",
]  # fmt: skip

# Times, amounts and sequence numbers outgrow 32 bits. SQLite's INTEGER has 64 already and must keep its name to number rows by itself.
for _table in SQLModel.metadata.tables.values():
    for _column in _table.columns:
        if type(_column.type) is Integer:
            _column.type = BigInteger().with_variant(Integer(), "sqlite")
        elif type(_column.type) is AutoString:
            # Text is compared by its bytes on both databases, so that pages, ties and snapshots come in one order whatever the locale.
            _column.type = String().with_variant(String(collation="C"), "postgresql")
