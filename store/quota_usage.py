"""What open leases hold and queued jobs ask for, by who is charged; the quota tree with the usage in it.

Owns the sums over rows, in the resource's unit: SQL counts and Python adds, so that no sum can overflow. Does not own quota rows
(quotas.py) or the arithmetic of the tree (quotas/tree.py). Called by the store's views of quotas; the scheduler keeps its own sums.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, func, select

from domain.slices import MILLI_GPU_PER_DEVICE
from domain.states import JobState
from quotas.amount import Amount
from quotas.tree import Tree
from store import quota_tree, shapes
from store.tables import Device, Flavor, Job, JobClass, Lease, LeaseNode

Amounts = dict[tuple[str, str], int]  # by tenant or project, and resource

_lease = Lease.__table__  # type: ignore[attr-defined]
_flavor = Flavor.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_part = LeaseNode.__table__  # type: ignore[attr-defined]
_job = Job.__table__  # type: ignore[attr-defined]
_class = JobClass.__table__  # type: ignore[attr-defined]


def held(connection: Connection, tenant_id: str | None) -> Amounts:
    """Return what open leases hold, of one tenant or of all."""
    is_open = and_(_lease.c.released_at_ms.is_(None), *([_lease.c.tenant_id == tenant_id] if tenant_id is not None else []))
    columns = (_lease.c.tenant_id, _lease.c.project_id, _flavor.c.gpu_model, _lease.c.milli_gpu)
    gpus = select(*columns, func.count()).select_from(_lease.join(_flavor, _flavor.c.name == _lease.c.flavor)).where(is_open)
    found: Amounts = {}
    for *owners, model, milli_gpu, count in connection.execute(gpus.group_by(*columns)):
        _add(found, owners, model, milli_gpu * count)
    columns = (_lease.c.tenant_id, _lease.c.project_id, _part.c.cpu_milli, _part.c.memory_bytes)
    parts = select(*columns, func.count()).select_from(_lease.join(_part, _part.c.lease_id == _lease.c.id)).where(is_open)
    for *owners, cpu_milli, memory_bytes, count in connection.execute(parts.group_by(*columns)):
        _add(found, owners, "cpu", cpu_milli * count)
        _add(found, owners, "memory", memory_bytes * count)
    return found


def queued(connection: Connection, tenant_id: str | None) -> Amounts:
    """Return what queued jobs ask for, likewise; a job with alternatives counts for its first choice."""
    mine = [_job.c.tenant_id == tenant_id] if tenant_id is not None else []
    waiting = select(_job.c.class_id, func.count().label("jobs")).where(_job.c.state == JobState.QUEUED.value, *mine)
    counted = waiting.group_by(_job.c.class_id).subquery()
    columns = (_class.c.tenant_id, _class.c.project_id, _class.c.shape, counted.c.jobs)
    models = {row.name: row.gpu_model for row in connection.execute(select(_flavor.c.name, _flavor.c.gpu_model))}
    found: Amounts = {}
    for *owners, text, count in connection.execute(select(*columns).join(counted, counted.c.class_id == _class.c.id)):
        shape = shapes.shape_of(text)
        if shape.flavors:
            _add(found, owners, models.get(shape.flavors[0], shape.flavors[0]), shape.milli_gpu * count)
        _add(found, owners, "cpu", shape.cpu_milli_per_replica * shape.replicas * count)
        _add(found, owners, "memory", shape.memory_bytes_per_replica * shape.replicas * count)
    return found


def charged_tree(connection: Connection, now_ms: int) -> Tree:
    """Return the quota tree in force at `now_ms` with what open leases hold."""
    tree = quota_tree.read(connection, now_ms)
    for (owner, resource), amount in held(connection, None).items():
        if owner in tree and tree.is_leaf(owner):
            tree.add(owner, {resource: Amount(amount)})
    return tree


def models(connection: Connection) -> list[str]:
    """Return the GPU models that quotas can name, in order."""
    return list(connection.execute(select(_flavor.c.gpu_model).distinct().order_by(_flavor.c.gpu_model)).scalars())


def capacity(connection: Connection, model: str) -> int:
    """Return how much of a GPU model the fleet has that works, in milli-GPU."""
    usable = and_(_device.c.gpu_model == model, _device.c.health == "healthy")
    return int(connection.execute(select(func.count()).select_from(_device).where(usable)).scalar_one()) * MILLI_GPU_PER_DEVICE


def _add(amounts: Amounts, owners: Sequence[str], resource: str, amount: int) -> None:
    for owner in owners:
        amounts[owner, resource] = amounts.get((owner, resource), 0) + amount
