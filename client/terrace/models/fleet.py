"""Nodes, devices, flavors, tiers, prices and quotas.

Owns their wire shapes and limits. Amounts are milli-GPU, milli-CPU or bytes by resource; prices are smallest accounted units per hour.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from terrace.models.common import Answer, Line, Name, Request, Timestamp

AMOUNT_MAXIMUM = 10**15
LABELS_MAXIMUM = 64
TAINTS_MAXIMUM = 32
Resource = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=63)]
Amount = Annotated[int, Field(ge=0, le=AMOUNT_MAXIMUM)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/:=-]*[A-Za-z0-9])?$", max_length=253)]  # as Kubernetes has them


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
    state: str  # ready | cordoned | draining | lost | gone
    isolation: str | None = None
    agent_version: str | None = None
    heartbeat_at: Timestamp | None = None
    milli_gpu_total: int
    milli_gpu_leased: int
    devices: list[DeviceAnswer] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    taints: list[str] = Field(default_factory=list)


class NodeCreate(Request):
    """A node that an agent will speak for. The agent fills in the devices."""

    name: Name
    site: Name = "local"
    rack: Name | None = None


class NodeSet(Request):
    """Fields of a node to change; absent ones stay. Cordon: nothing new starts. Drain: cordon, and running leases are evicted.

    `labels` are added to those that there are, null takes one away; `taints` replaces all; `rack` null: in no rack.
    """

    is_cordoned: bool | None = None
    is_draining: bool | None = None
    labels: Annotated[dict[Word, Word | None], Field(max_length=LABELS_MAXIMUM)] | None = None
    taints: Annotated[list[Word], Field(max_length=TAINTS_MAXIMUM)] | None = None
    rack: Name | None = None


class FlavorAnswer(Answer):
    """A kind of slice that can be asked for and priced."""

    name: str
    gpu_model: str
    mode: str
    milli_gpu: int
    price_units_per_hour: int | None = None
    currency: str | None = None
    is_simulated: bool = False  # some GPUs of the model are simulated


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
    """Quota in force now and what is held against it, of a tenant, of a project of it, or of a cohort."""

    tenant: str | None = None
    project: str | None = None
    resource: str
    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None
    held: int
    queued: int = 0
    is_simulated: bool = False  # some GPUs of the model are simulated
    valid_from: Timestamp | None = None
    valid_until: Timestamp | None = None
    warnings: list[str] = Field(default_factory=list)
    cohort: str | None = None
