"""What node agents and the service say to each other.

The agent pulls its assignments (long poll), pushes observations in batches that may be sent twice, and sends its
inventory at start. `(boot_id, agent_seq)` names an observation once for ever.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from terrace.models.common import Answer, Line, Request, Timestamp
from terrace.models.fleet import AMOUNT_MAXIMUM, Resource

OBSERVATIONS_MAXIMUM = 1_000
LOG_CHUNK_BYTES_MAXIMUM = 65_536
DEVICES_MAXIMUM = 64
LEASES_ALIVE_MAXIMUM = 4_096
SEQUENCE_MAXIMUM = 1 << 53

BootId = Annotated[Line, StringConstraints(min_length=8, max_length=64)]
LeaseId = Annotated[Line, StringConstraints(min_length=1, max_length=64)]


class DeviceReport(Request):
    """A device as NVML (or the simulation) describes it."""

    uuid: Annotated[Line, StringConstraints(min_length=1, max_length=128)]
    device_index: Annotated[int, Field(ge=0, lt=DEVICES_MAXIMUM)]
    gpu_model: Resource
    memory_bytes: Annotated[int, Field(ge=0, le=AMOUNT_MAXIMUM)]
    cells: Annotated[int, Field(ge=1, le=64)] = 1
    is_simulated: bool = False


class InventoryReport(Request):
    """What the node has, sent at every start of the agent and when it changes."""

    boot_id: BootId
    agent_version: Annotated[Line, StringConstraints(max_length=64)]
    cpu_milli: Annotated[int, Field(ge=1, le=AMOUNT_MAXIMUM)]
    memory_bytes: Annotated[int, Field(ge=1, le=AMOUNT_MAXIMUM)]
    isolation: Annotated[str, StringConstraints(pattern="^(namespaces|none)$")]
    devices: Annotated[list[DeviceReport], Field(max_length=DEVICES_MAXIMUM)]
    leases_alive: Annotated[list[LeaseId], Field(max_length=LEASES_ALIVE_MAXIMUM)] = Field(default_factory=list)


class AssignedSlice(Answer):
    """A device that the lease holds on this node."""

    device_uuid: str
    device_index: int
    milli_gpu: int


class Assignment(Answer):
    """A lease's part on this node. `target` run: make it run; stop: stop it, with `grace_ms` between notice and kill."""

    lease_id: str
    job_id: str
    attempt: int
    tenant_id: str
    role: str
    target: str
    stop_cause: str | None = None
    slices: list[AssignedSlice]
    cpu_milli: int
    memory_bytes: int
    replicas: int
    gpus_per_replica: int
    entrypoint: list[str]
    environment: dict[str, str]
    archive_sha256: str | None = None
    requirements: str | None = None
    token: str
    limit_ms: int
    grace_ms: int


class Assignments(Answer):
    """Every open lease of this node. A lease that the agent runs and that is absent here must be stopped.

    `cursor` changes whenever the answer does.
    """

    cursor: str
    items: list[Assignment]


class ObservationKind(StrEnum):
    """What an agent can see."""

    STARTED = "started"  # the entrypoint's process exists
    PROGRESS = "progress"  # data: step, total, metrics, and `checkpoint` true when everything through `step` is saved
    EXITED = "exited"  # data: exit_code, failure_class, message, was_stopped (on request, before it ended by itself)
    GONE = "gone"  # process tree proven gone and devices idle
    LOST = "lost"  # the agent restarted and the lease did not survive it
    LOG = "log"  # data: offset, text
    DEVICE_HEALTH = "device_health"


class ObservationReport(Request):
    """One thing seen, at the agent's clock."""

    agent_seq: Annotated[int, Field(ge=0, le=SEQUENCE_MAXIMUM)]
    kind: ObservationKind
    lease_id: LeaseId | None = None
    observed_at: Timestamp
    data: dict[str, Any] = Field(default_factory=dict)


class ObservationBatch(Request):
    """Observations in order of `agent_seq`. Also the heartbeat: an empty batch is one."""

    boot_id: BootId
    observations: Annotated[list[ObservationReport], Field(max_length=OBSERVATIONS_MAXIMUM)]


class ObservationAccepted(Answer):
    """How far the service has everything: older observations may be forgotten by the agent."""

    accepted_through_seq: int
