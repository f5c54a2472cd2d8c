"""What a node has to do: the open leases of a node, as its agent pulls them.

Owns no rows and no writes: leases are made and ended by store/leases.py. A lease leaves the answer when the agent has proven it gone.
Called by api/routes/agents.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from store.errors import NotFoundError
from store.tables import Device, Job, Lease, LeaseNode, LeaseSlice, Node

ASSIGNMENTS_MAXIMUM = 4_096

_lease = Lease.__table__  # type: ignore[attr-defined]
_part = LeaseNode.__table__  # type: ignore[attr-defined]
_slice = LeaseSlice.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_job = Job.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class AssignedSliceView:
    """A device of this node that the lease holds."""

    device_uuid: str
    device_index: int
    milli_gpu: int


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """A lease's part on one node. `replicas` and `gpus_per_replica` are the whole job's."""

    lease_id: str
    job_id: str
    attempt: int
    tenant_id: str
    role: str
    target: str
    stop_cause: str | None
    slices: tuple[AssignedSliceView, ...]
    cpu_milli: int
    memory_bytes: int
    replicas: int
    gpus_per_replica: int
    entrypoint: Sequence[str]
    environment: Mapping[str, str]
    archive_sha256: str | None
    requirements: str | None
    token: str
    limit_ms: int
    grace_ms: int


def node_id(connection: Connection, name: str) -> str:
    """Return the identifier of the node called `name`; NotFoundError."""
    found: str | None = connection.execute(select(_node.c.id).where(_node.c.name == name)).scalar_one_or_none()
    if found is None:
        raise NotFoundError("node_not_found", f"there is no node {name!r}", field="node")
    return found


@dataclass(frozen=True, slots=True)
class AssignmentsOfNode:
    """Every lease of the node that is not proven gone, in order of lease identifier."""

    node: str

    def fetch(self, connection: Connection, /) -> tuple[AssignmentView, ...]:
        """Return at most `ASSIGNMENTS_MAXIMUM` assignments; NotFoundError for the node."""
        here = and_(_part.c.node_id == node_id(connection, self.node), _part.c.is_gone.is_(False))
        columns = (
            _lease.c.id, _lease.c.job_id, _lease.c.attempt, _lease.c.tenant_id, _part.c.role, _lease.c.target, _lease.c.stop_cause,
            _part.c.cpu_milli, _part.c.memory_bytes, _job.c.replicas, _job.c.slices_per_replica, _job.c.entrypoint, _job.c.environment,
            _job.c.archive_sha256, _job.c.requirements, _lease.c.token, _lease.c.limit_ms, _lease.c.grace_ms, _part.c.node_id,
        )  # fmt: skip
        statement = (
            select(*columns)
            .select_from(_part.join(_lease, _lease.c.id == _part.c.lease_id).join(_job, _job.c.id == _lease.c.job_id))
            .where(here)
            .order_by(_lease.c.id)
            .limit(ASSIGNMENTS_MAXIMUM)
        )
        rows = connection.execute(statement).all()
        slices = self._slices(connection, [row.id for row in rows], rows[0].node_id) if rows else {}
        return tuple(
            AssignmentView(
                lease_id=row.id,
                job_id=row.job_id,
                attempt=row.attempt,
                tenant_id=row.tenant_id,
                role=row.role,
                target=row.target,
                stop_cause=row.stop_cause,
                slices=tuple(slices.get(row.id, ())),
                cpu_milli=row.cpu_milli,
                memory_bytes=row.memory_bytes,
                replicas=row.replicas,
                gpus_per_replica=row.slices_per_replica,
                entrypoint=json.loads(row.entrypoint),
                environment=json.loads(row.environment),
                archive_sha256=row.archive_sha256,
                requirements=row.requirements,
                token=row.token,
                limit_ms=row.limit_ms,
                grace_ms=row.grace_ms,
            )
            for row in rows
        )

    @staticmethod
    def _slices(connection: Connection, lease_ids: Sequence[str], node: str) -> dict[str, list[AssignedSliceView]]:
        statement = (
            select(_slice.c.lease_id, _device.c.id, _device.c.device_index, _slice.c.milli_gpu)
            .select_from(_slice.join(_device, _device.c.id == _slice.c.device_id))
            .where(_slice.c.lease_id.in_(lease_ids), _slice.c.node_id == node)
            .order_by(_slice.c.lease_id, _slice.c.ordinal)
        )
        found: dict[str, list[AssignedSliceView]] = {}
        for lease_id, *rest in connection.execute(statement):
            found.setdefault(lease_id, []).append(AssignedSliceView(*rest))
        return found


@dataclass(frozen=True, slots=True)
class HasLeaseOf:
    """Whether the node holds an open lease of a tenant whose job uses an archive: only then may its agent read it."""

    node: str
    tenant_id: str
    archive_sha256: str

    def fetch(self, connection: Connection, /) -> bool:
        """Return True when it does; NotFoundError for the node."""
        statement = (
            select(_lease.c.id)
            .select_from(_part.join(_lease, _lease.c.id == _part.c.lease_id).join(_job, _job.c.id == _lease.c.job_id))
            .where(
                _part.c.node_id == node_id(connection, self.node),
                _part.c.is_gone.is_(False),
                _lease.c.tenant_id == self.tenant_id,
                _job.c.archive_sha256 == self.archive_sha256,
            )
            .limit(1)
        )
        return connection.execute(statement).first() is not None
