"""The quota tree of a scenario from Kueue's cohorts and ClusterQueues: the sections `cohorts` and `tenants`.

Owns which resource group a queue keeps, how flavors become GPU models, and the numbers of the quotas. Does not own reading
(kueue_objects.py), jobs (kueue_jobs.py) or nodes (kueue_nodes.py). Called by kueue.py; the sections stand on their own, so an
import of quotas needs nothing else. A scenario knows GPUs by model and beside them one quota of CPUs and one of memory, so CPUs and
memory of several flavors are added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from quotas.tree import DEPTH_MAXIMUM
from scheduler.sim import kueue_quantity
from scheduler.sim.kueue_documents import KueueError, Note, Source
from scheduler.sim.kueue_objects import NEVER, TRY_NEXT_FLAVOR, Amounts, Cohort, Flavor, Group, Queue
from scheduler.sim.kueue_quantity import Unit

CPU, MEMORY = "cpu", "memory"
_BESIDE = {CPU: ("cpus", kueue_quantity.CPU), MEMORY: ("memory_gib", kueue_quantity.MEMORY)}
_RESERVED_MODELS = {"any", "cpu", "memory", "cpus"}  # these words mean something else where a scenario names a model


@dataclass(frozen=True, slots=True)
class QuotaTree:
    """The sections, and what jobs and nodes need to know of them."""

    cohorts: list[dict[str, Any]]
    tenants: list[dict[str, Any]]
    kept: Mapping[str, Group]  # by queue
    models: Mapping[str, str]  # flavor -> GPU model
    nominal: Mapping[str, int]  # by model, cpu and memory, in our units, over the whole tree
    own: Mapping[tuple[str, str], int]  # the same of each queue: by queue and resource


def build(
    cohorts: Mapping[str, Cohort], queues: Mapping[str, Queue], flavors: Mapping[str, Flavor], *, gpu_resource: str, notes: list[Note]
) -> QuotaTree:
    """Return the quota tree; `KueueError` where cohorts form a ring."""
    builder = _Builder(gpu_resource, notes)
    kept = {name: builder.kept_group(queue) for name, queue in queues.items()}
    builder.name_models([*kept.values(), *(group for cohort in cohorts.values() for group in cohort.groups)], flavors)
    used = {flavor for group in kept.values() for flavor in group.flavors}
    parents = {name: cohort.parent for name, cohort in cohorts.items()}
    for name in [*parents.values(), *(queue.cohort for queue in queues.values())]:
        if name is not None:
            parents.setdefault(name, None)
    _check_depth(cohorts, parents)
    names = {name: name if name not in queues else f"cohort:{name}" for name in parents}
    for name in cohorts:
        if names[name] != name:
            notes.append(
                Note(cohorts[name].source, "metadata.name", f"is {names[name]} in the scenario, because a ClusterQueue has that name")
            )
    cohort_section = []
    for name, parent in parents.items():
        entry: dict[str, Any] = {"name": names[name]}
        if parent is not None:
            entry["parent"] = names[parent]
        if name in cohorts:
            entry |= builder.weight(cohorts[name].weight) | builder.cohort_quota(cohorts[name], used)
        cohort_section.append(entry)
    tenant_section = []
    for name, queue in queues.items():
        entry = {"name": name}
        if queue.cohort is not None:
            entry["parent"] = names[queue.cohort]
        quota = builder.quota(queue.source, kept[name].flavors, queue=name)
        tenant_section.append(entry | builder.weight(queue.weight) | {"quota": quota} | _preemption(queue) | _fungibility(queue))
    return QuotaTree(cohort_section, tenant_section, kept, builder.models, builder.nominal, builder.own)


def model_of(flavor: str) -> str:
    """Return the GPU model that stands for a flavor: its own name, unless the word is taken."""
    return f"flavor:{flavor}" if flavor in _RESERVED_MODELS else flavor


def _check_depth(cohorts: Mapping[str, Cohort], parents: Mapping[str, str | None]) -> None:
    for name, cohort in cohorts.items():
        above = [name]
        while (parent := parents[above[-1]]) is not None:
            if parent in above:
                raise KueueError(cohort.source, "spec.parentName", f"its cohorts form a ring: {' > '.join([*above, parent])}")
            above.append(parent)
        if len(above) >= DEPTH_MAXIMUM:
            raise KueueError(cohort.source, "spec.parentName", f"lies more than {DEPTH_MAXIMUM - 1} levels deep")


def _preemption(queue: Queue) -> dict[str, Any]:
    said = {"within_tenant": queue.within, "reclaim_within_cohort": queue.reclaim}
    found: dict[str, Any] = {key: value for key, value in said.items() if value != NEVER}
    if queue.borrow != NEVER:
        found["borrow_within_cohort"] = {"policy": queue.borrow}
        if queue.borrow_max_priority is not None:
            found["borrow_within_cohort"]["max_priority"] = queue.borrow_max_priority
    return {"preemption": found} if found else {}


def _fungibility(queue: Queue) -> dict[str, Any]:
    found = {}
    if queue.when_can_borrow != "borrow":
        found["when_can_borrow"] = queue.when_can_borrow
    if queue.when_can_preempt != TRY_NEXT_FLAVOR:
        found["when_can_preempt"] = queue.when_can_preempt
    return {"flavor_fungibility": found} if found else {}


class _Builder:
    """Collects names, totals and notes while the sections are built."""

    def __init__(self, gpu_resource: str, notes: list[Note]) -> None:
        self.gpu_resource = gpu_resource
        self.notes = notes
        self.models: dict[str, str] = {}
        self.nominal: dict[str, int] = {}
        self.own: dict[tuple[str, str], int] = {}

    def kept_group(self, queue: Queue) -> Group:
        """Return the group with the GPU resource, else the first; the others are left out."""
        groups = list(enumerate(queue.groups))
        if not groups:
            self.notes.append(Note(queue.source, "spec.resourceGroups", "is not set: the tenant has no quota"))
            return Group((), {})
        at, kept = next((item for item in groups if self.gpu_resource in item[1].resources), groups[0])
        for other, group in groups:
            if other != at:
                reason = f"left out: a scenario has one resource group, and resourceGroups[{at}] is kept"
                self.notes.append(Note(queue.source, f"spec.resourceGroups[{other}]", f"{', '.join(group.resources)}: {reason}"))
        self._note_group(queue.source, at, kept)
        return kept

    def _note_group(self, source: Source, at: int, group: Group) -> None:
        for resource in group.resources:
            if resource != self.gpu_resource and resource not in _BESIDE:
                reason = f"{resource} is left out: a scenario has GPUs, CPUs and memory"
                self.notes.append(Note(source, f"spec.resourceGroups[{at}].coveredResources", reason))
        summed = [resource for resource in group.resources if resource in _BESIDE and resource != self.gpu_resource]
        if summed and len(group.flavors) > 1:
            reason = f"the quotas of {' and '.join(summed)} are added up over {len(group.flavors)} flavors"
            self.notes.append(Note(source, f"spec.resourceGroups[{at}].flavors", f"{reason}: a scenario has one of each"))

    def name_models(self, groups: Iterable[Group], flavors: Mapping[str, Flavor]) -> None:
        """Give each flavor its GPU model."""
        used = dict.fromkeys(name for group in groups for name in group.flavors)
        for name in used:
            self.models[name] = model_of(name)
            if name in _RESERVED_MODELS:
                self.notes.append(
                    Note(None, f"gpu_model {self.models[name]}", f"stands for the flavor {name}, which is no name for a model")
                )
            if name not in flavors:
                self.notes.append(Note(None, f"ResourceFlavor {name}", "is not in the files: taken as one without labels and taints"))
        for name in flavors:
            self.models.setdefault(name, model_of(name))

    def weight(self, weight: Fraction) -> dict[str, Any]:
        """Return the entry of a weight other than 1."""
        if weight == 1:
            return {}
        return {"weight": int(weight) if weight.denominator == 1 else float(weight)}

    def cohort_quota(self, cohort: Cohort, used: set[str]) -> dict[str, Any]:
        """Return the quota that a cohort adds, of the flavors that some queue may use."""
        flavors: dict[str, Mapping[str, Amounts]] = {}
        for at, group in enumerate(cohort.groups):
            self._note_group(
                cohort.source, at, Group(group.resources, {name: group.flavors[name] for name in group.flavors if name in used})
            )
            for name, amounts in group.flavors.items():
                if name in used:
                    flavors[name] = amounts
                else:
                    reason = f"{name} is left out: no ClusterQueue keeps quota of it"
                    self.notes.append(Note(cohort.source, f"spec.resourceGroups[{at}].flavors", reason))
        quota = self.quota(cohort.source, flavors, queue=None)
        return {"quota": quota} if quota else {}

    def quota(self, source: Source, flavors: Mapping[str, Mapping[str, Amounts]], *, queue: str | None) -> dict[str, Any]:
        """Return the quota of a queue, or of a cohort where `queue` is None: by GPU model, with CPUs and memory beside the models."""
        quota: dict[str, Any] = {}
        for name, amounts in flavors.items():
            if self.gpu_resource in amounts:
                model = self.models[name]
                quota[model] = self._entry(source, queue, model, amounts[self.gpu_resource], kueue_quantity.GPU)
        for resource, (key, unit) in _BESIDE.items():
            parts = [amounts[resource] for amounts in flavors.values() if resource in amounts and resource != self.gpu_resource]
            if parts:
                quota[key] = self._entry(source, queue, resource, _added_up(parts, is_leaf=queue is not None), unit)
        return quota

    def _entry(self, source: Source, queue: str | None, resource: str, amounts: Amounts, unit: Unit) -> dict[str, Any]:
        nominal = self._number(source, f"{amounts.path}.nominalQuota", amounts.nominal, unit)
        count = unit.count(amounts.nominal)
        self.nominal[resource] = self.nominal.get(resource, 0) + count
        if queue is not None:
            self.own[queue, resource] = count
        entry: dict[str, Any] = {"nominal": nominal}
        for key, field_name, limit in (("borrow", "borrowingLimit", amounts.borrowing), ("lend", "lendingLimit", amounts.lending)):
            if limit is not None:
                entry[key] = self._number(source, f"{amounts.path}.{field_name}", limit, unit)
        return entry

    def _number(self, source: Source, path: str, quantity: Fraction, unit: Unit) -> int | float | None:
        count = unit.count(quantity)
        if not unit.fits(count):
            self.notes.append(Note(source, path, f"is more than {unit.maximum}, the most that a scenario can say: unlimited"))
            return None
        if not unit.is_exact(quantity):
            self.notes.append(Note(source, path, f"is finer than a scenario can say: rounded up to {unit.number(count)}"))
        return unit.number(count)


def _added_up(parts: list[Amounts], *, is_leaf: bool) -> Amounts:
    """Return the sum of the quotas of several flavors. One flavor without a limit makes the sum unlimited."""
    if len(parts) == 1:
        return parts[0]
    nominal = sum((part.nominal for part in parts), Fraction(0))
    borrowing = [part.borrowing for part in parts if part.borrowing is not None]
    # A leaf without a lending limit lends all that it has; a cohort also what lies below it, which is not known here.
    lending = [part.nominal if part.lending is None and is_leaf else part.lending for part in parts]
    bounded = [limit for limit in lending if limit is not None]
    return Amounts(
        parts[0].path,
        nominal,
        sum(borrowing, Fraction(0)) if len(borrowing) == len(parts) else None,
        sum(bounded, Fraction(0)) if len(bounded) == len(parts) and any(part.lending is not None for part in parts) else None,
    )
