"""Nodes, devices, flavors, tiers, prices and quotas.

Owns their wire shapes and limits. Amounts are milli-GPU, milli-CPU or bytes by resource; prices are smallest accounted units per hour.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from terrace.models.common import Answer, Line, Name, Request, Timestamp

AMOUNT_MAXIMUM = 10**15
Resource = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=63)]
Amount = Annotated[int, Field(ge=0, le=AMOUNT_MAXIMUM)]


class DeviceAnswer(Answer):
    """A physical GPU."""

    uuid: str
    node: str
    device_index: int
    gpu_model: str
    memory_bytes: int
    mode: str
    health: str
    health_detail: str | None = None
    is_simulated: bool
    lease_id: str | None = None


class NodeAnswer(Answer):
    """A machine and what of it is free."""

    id: str
    name: str
    site: str
    rack: str | None = None
    gpu_model: str | None = None
    cpu_milli: int
    memory_bytes: int
    is_simulated: bool
    state: str  # ready | cordoned | draining | lost
    isolation: str | None = None
    agent_version: str | None = None
    heartbeat_at: Timestamp | None = None
    milli_gpu_total: int
    milli_gpu_leased: int
    devices: list[DeviceAnswer] = Field(default_factory=list)


class NodeCreate(Request):
    """A node that an agent will speak for. The agent fills in the devices."""

    name: Name
    site: Name = "local"
    rack: Name | None = None


class NodeSet(Request):
    """Fields of a node to change. Cordon: nothing new starts. Drain: cordon, and running leases are evicted."""

    is_cordoned: bool | None = None
    is_draining: bool | None = None


class FlavorAnswer(Answer):
    """A kind of slice that can be asked for and priced."""

    name: str
    gpu_model: str
    mode: str
    milli_gpu: int
    price_units_per_hour: int | None = None
    currency: str | None = None


class PriceCreate(Request):
    """A list price from `valid_from` on, in the currency's smallest accounted unit per slice and hour."""

    flavor: Annotated[Line, StringConstraints(min_length=1, max_length=63)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    units_per_hour: Annotated[int, Field(ge=0, le=10**15)]
    valid_from: Timestamp | None = None


class PriceAnswer(Answer):
    """A list price."""

    id: str
    flavor: str
    currency: str
    units_per_hour: int
    valid_from: Timestamp


class QuotaSet(Request):
    """Quota of one node of the tree for one resource: a GPU model in milli-GPU, `cpu` in milli-CPU, `memory` in bytes."""

    resource: Resource
    nominal: Amount
    borrowing_limit: Amount | None = None
    lending_limit: Amount | None = None
    valid_from: Timestamp | None = None
    valid_until: Timestamp | None = None


class QuotaAnswer(Answer):
    """Quota in force now and what is held against it."""

    tenant: str
    project: str | None = None
    resource: str
    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None
    held: int
    queued: int = 0
    valid_from: Timestamp | None = None
    valid_until: Timestamp | None = None
    warnings: list[str] = Field(default_factory=list)
