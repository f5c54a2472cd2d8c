"""Nodes, devices, flavors, tiers and prices.

Owns the shape of what can be leased and what it lists for. Written by agents' inventories, operators and finance.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlmodel import Field, SQLModel


class Node(SQLModel, table=True):
    """A machine with GPUs. It is usable when ready, not cordoned and not draining."""

    __tablename__ = "node"

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    site: str
    rack: str | None = None
    gpu_model: str | None = None
    cpu_milli: int
    memory_bytes: int
    is_simulated: bool = False
    is_cordoned: bool = False
    is_draining: bool = False
    is_lost: bool = False  # set by the scheduler when heartbeats stop, cleared by the next inventory
    agent_version: str | None = None
    agent_boot_id: str | None = None  # changes when the agent restarts: its old leases cannot be alive
    isolation: str | None = None  # what the agent can do: "namespaces" or "none"
    labels: str = "{}"  # JSON object
    taints: str = "[]"  # JSON list: only jobs that tolerate all of them are placed here
    declared_gone_at_ms: int | None = None  # an operator said that a lost node does not come back; cleared by its next inventory
    registered_at_ms: int
    heartbeat_at_ms: int | None = None


class Device(SQLModel, table=True):
    """A physical GPU, known by its NVML UUID. `mode` is part of the key that open claims point at, so it cannot change under them."""

    __tablename__ = "device"
    __table_args__ = (
        UniqueConstraint("node_id", "device_index", name="device_index_on_node"),
        UniqueConstraint("id", "mode", name="device_with_mode"),
        CheckConstraint("mode IN ('whole', 'mig', 'shared')", name="device_mode_known"),
    )

    id: str = Field(primary_key=True)  # NVML UUID
    node_id: str = Field(foreign_key="node.id", index=True)
    device_index: int
    gpu_model: str
    memory_bytes: int
    cells: int = 1  # memory slices: 1 for devices without MIG
    mode: str = "whole"
    island: int = 0  # devices of one node with the same number are joined by NVLink
    health: str = "healthy"
    health_detail: str | None = None
    is_simulated: bool = False


class Flavor(SQLModel, table=True):
    """A kind of slice that can be asked for and priced."""

    __tablename__ = "flavor"
    __table_args__ = (CheckConstraint("milli_gpu > 0 AND milli_gpu <= 1000", name="flavor_size_in_device"),)

    name: str = Field(primary_key=True)
    gpu_model: str
    mode: str
    milli_gpu: int
    profile: str | None = None


class Tier(SQLModel, table=True):
    """A named bundle of terms: time limits, grace, whether its jobs may be preempted, and the priorities it allows."""

    __tablename__ = "tier"
    __table_args__ = (CheckConstraint("default_limit_ms > 0 AND default_limit_ms <= maximum_limit_ms", name="tier_limits_ordered"),)

    name: str = Field(primary_key=True)
    default_limit_ms: int
    maximum_limit_ms: int
    grace_ms: int
    is_preemptible: bool = True
    priority_minimum: int = -1_000
    priority_maximum: int = 1_000


class Price(SQLModel, table=True):
    """List price of one whole-slice hour of a flavor, from `valid_from_ms` until the next row of the same flavor."""

    __tablename__ = "price"
    __table_args__ = (
        UniqueConstraint("flavor", "currency", "valid_from_ms", name="price_starts_once"),
        CheckConstraint("units_per_hour >= 0", name="price_not_negative"),
    )

    id: str = Field(primary_key=True)
    flavor: str = Field(foreign_key="flavor.name")
    currency: str
    units_per_hour: int  # smallest accounted units of the currency, per slice and hour
    valid_from_ms: int
    created_at_ms: int
