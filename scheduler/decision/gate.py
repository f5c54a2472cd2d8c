"""Gate: the checks that a class passes before a place is looked for, in the order of the design, each with its own code.

Owns valid, permitted, exceeds maximum (which do not change while a decision runs) and quota (which does). Does not own
capacity (fit.py, place.py) or money: a tenant whose budget is spent has its jobs held before they reach a snapshot. A check is a
function returning a Reason or None; `Reason.data` carries the numbers with their units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domain.jobs import Shape
from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from domain.slices import MILLI_GPU_PER_DEVICE, DeviceMode
from quotas import amount
from quotas.amount import Amount
from quotas.tree import RESOURCE_CPU, RESOURCE_MEMORY, Tree
from scheduler.decision import users
from scheduler.decision.snapshot import ClassKey, Snapshot, model_of, usage_of

_UNITS = {RESOURCE_CPU: "cpu_milli", RESOURCE_MEMORY: "memory_bytes"}


@dataclass(frozen=True, slots=True)
class Option:
    """One flavor that a class may get, and what a job then charges. The flavor of a job without GPUs is None."""

    flavor: str | None
    model: str | None
    usage: Mapping[str, Amount]


def options(snapshot: Snapshot, key: ClassKey) -> tuple[Option, ...] | Reason:
    """Return the flavors that the class may ever get, in its order of preference, or why there is none."""
    refusal = invalid(snapshot, key)
    if refusal is not None:
        return refusal
    shape = key.shape
    if not shape.slices:
        wanted = [Option(None, None, usage_of(shape, None))]
    else:
        models = [(flavor, model_of(flavor, snapshot.flavors)) for flavor in shape.flavors]
        wanted = [Option(flavor, model, usage_of(shape, model)) for flavor, model in models]
    permitted = [option for option in wanted if option.model is None or snapshot.tree.permits(key.tenant, option.model)]
    if not permitted:
        return Reason(ReasonCode.NOT_PERMITTED, {"tenant": key.tenant, "flavors": list(shape.flavors)}, Unblock.MORE_QUOTA)
    refusal = users.exceeds_cap(snapshot.tree, key)
    if refusal is not None:
        return refusal
    first_refusal: Reason | None = None
    possible = []
    for option in permitted:
        refusal = exceeds_maximum(snapshot, key, option)
        if refusal is None:
            possible.append(option)
        elif first_refusal is None:
            first_refusal = refusal
    return first_refusal if first_refusal is not None and not possible else tuple(possible)


def invalid(snapshot: Snapshot, key: ClassKey) -> Reason | None:
    """Refuse what no decision can be made for. The API refuses most of it earlier; a snapshot is not trusted to be clean."""
    shape = key.shape
    field: str | None = None
    if key.tenant not in snapshot.tree or not snapshot.tree.is_leaf(key.tenant):
        field = "tenant"
    elif shape.replicas < 1:
        field = "replicas"
    elif shape.slices_per_replica < 0 or (shape.slices_per_replica == 0 and not shape.cpu_milli_per_replica):
        field = "gpus"
    elif shape.cpu_milli_per_replica < 0:
        field = "cpus"
    elif shape.memory_bytes_per_replica < 0:
        field = "memory"
    elif key.limit_ms <= 0:
        field = "limit"
    elif (shape.slices and not shape.flavors) or (shape.slices and not _is_whole(snapshot, shape)):
        field = "flavors"
    return None if field is None else Reason(ReasonCode.INVALID, {"field": field}, Unblock.CHANGE_THE_JOB)


def _is_whole(snapshot: Snapshot, shape: Shape) -> bool:
    modes = [snapshot.flavors[flavor].mode for flavor in shape.flavors if flavor in snapshot.flavors]
    return shape.milli_gpu_per_slice == MILLI_GPU_PER_DEVICE and all(mode is DeviceMode.WHOLE for mode in modes)


def exceeds_maximum(snapshot: Snapshot, key: ClassKey, option: Option) -> Reason | None:
    """Refuse what could not start even if nothing else ran: more than the quota can ever give, or than any node or site has."""
    for resource, wanted in option.usage.items():
        most = snapshot.tree.maximum(key.tenant, resource)
        if snapshot.tree.governs(key.tenant, resource) and wanted > most:
            unit = _UNITS.get(resource, "milli_gpu")
            data: dict[str, ReasonValue] = {"limit": "quota", "resource": resource, f"needed_{unit}": wanted, f"maximum_{unit}": most}
            return Reason(ReasonCode.EXCEEDS_MAXIMUM, data, Unblock.MORE_QUOTA)
    room = snapshot.fleet.layout.largest_gang(key.shape, option.model, spans_nodes=snapshot.policy.spans_nodes, where=key.where)
    if room >= key.shape.replicas:
        return None
    shape = key.shape
    data = {
        "limit": "fleet",
        "replicas": shape.replicas,
        "maximum_replicas": room,
        "gpus_per_replica": shape.slices_per_replica,
        "largest_node_gpus": len(snapshot.fleet.buckets.get(option.model or "", (0,))) - 1,  # a bucket for each count of free devices
    }
    return Reason(ReasonCode.EXCEEDS_MAXIMUM, data, Unblock.CHANGE_THE_JOB)


def over_quota(tree: Tree, tenant: str, option: Option) -> Reason | None:
    """Refuse what the tenant may not hold now. This is the last gate before placement, because it costs more than the others."""
    for resource, wanted in option.usage.items():
        if not tree.governs(tenant, resource):
            continue
        free = tree.available(tenant, resource)
        if wanted > free:
            return _quota_reason(tree, tenant, resource, wanted, free)
    return None


def lacking(tree: Tree, tenant: str, option: Option) -> tuple[str, ...]:
    """Return the resources of which the tenant may not hold as much now, in the order of the option."""
    return tuple(
        resource
        for resource, wanted in option.usage.items()
        if tree.governs(tenant, resource) and wanted > tree.available(tenant, resource)
    )


def _quota_reason(tree: Tree, tenant: str, resource: str, wanted: Amount, free: Amount) -> Reason:
    owner = tree.tenant_of(tenant)
    unit = _UNITS.get(resource, "milli_gpu")
    used = tree.usage(owner, resource)
    nominal = tree.subtree_quota(owner, resource)
    data: dict[str, ReasonValue] = {
        "resource": resource,
        f"needed_{unit}": wanted,
        f"available_{unit}": amount.at_least_zero(free),
        f"used_{unit}": used,
        f"nominal_{unit}": None if amount.is_unlimited(nominal) else nominal,
    }
    if tree.is_blocked_by_borrowing_limit(tenant, resource, wanted):
        return Reason(ReasonCode.BORROWING_LIMIT, data, Unblock.OWN_JOB_ENDS)
    return Reason(ReasonCode.QUOTA_EXCEEDED, data, Unblock.OWN_JOB_ENDS if used else Unblock.ANY_JOB_ENDS)


def borrows(tree: Tree, tenant: str, option: Option) -> bool:
    """Tell whether this start would take the tenant above its own quota in anything that quota limits, CPUs and memory included."""
    owner = tree.tenant_of(tenant)
    return any(
        amount.add(tree.usage(owner, resource), wanted) > tree.subtree_quota(owner, resource)
        for resource, wanted in option.usage.items()
        if tree.counts(tenant, resource)
    )


def borrowed_by(tree: Tree, tenant: str, option: Option) -> dict[str, int]:
    """Return, per GPU model, the part of this start above the tenant's own quota. Ask before the usage is added."""
    owner = tree.tenant_of(tenant)
    borrowed = {}
    for resource, wanted in option.usage.items():
        if resource in _UNITS:
            continue
        own_free = amount.at_least_zero(amount.subtract(tree.subtree_quota(owner, resource), tree.usage(owner, resource)))
        above = amount.subtract(wanted, own_free)
        if above > 0:
            borrowed[resource] = int(above)
    return borrowed
