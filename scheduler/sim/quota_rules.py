"""What quotas, policies and capacity reservations of a scenario may say together.

Owns: nobody borrows without a parent or lends more than it has, a resource has one name, borrow_within_cohort excludes fair sharing,
and capacity reservations fit what the nodes have at every moment. Does not own names and references (references.py, the only
caller, which has checked them) or what follows from a quota (quotas/).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import reduce

from quotas import amount
from quotas.tree import RESOURCE_CPU, RESOURCE_MEMORY, BorrowPreempt
from scheduler.sim import calendar
from scheduler.sim.problems import ScenarioError
from scheduler.sim.scenario import ANY_MODEL, QuotaPart, ReservationPart, Scenario
from scheduler.sim.units import MILLI

_FIELDS = {RESOURCE_CPU: "cpus", RESOURCE_MEMORY: "memory_gib"}
_NO_MODELS = {
    RESOURCE_CPU: "is no GPU model; cpus is the quota of CPUs",
    RESOURCE_MEMORY: "is no GPU model; memory_gib is the quota of memory",
    ANY_MODEL: "stands for every GPU model, so none can be called so",
}


def problems(scenario: Scenario, leaves: set[str]) -> Iterator[ScenarioError]:
    """Yield what is wrong; `leaves` are the tenants and projects that jobs may name."""
    children = {part.name for part in (*scenario.cohorts, *scenario.tenants) if part.parent is not None}
    for at, node in enumerate(scenario.nodes):
        if node.gpu_model in _NO_MODELS:
            yield ScenarioError(f"nodes[{at}].gpu_model", f"{node.gpu_model} {_NO_MODELS[node.gpu_model]}")
    for path, quota, name in _quotas(scenario):
        yield from _quota_problems(path, quota, has_parent=name in children, is_leaf=name in leaves)
    if scenario.policy.fair_sharing:
        for at, tenant in enumerate(scenario.tenants):
            if tenant.preemption.borrow_within_cohort.policy is not BorrowPreempt.NEVER:
                yield ScenarioError(
                    f"tenants[{at}].preemption.borrow_within_cohort", "cannot be used together with policy.fair_sharing, which is on"
                )
    yield from _reservation_problems(scenario)


def _quotas(scenario: Scenario) -> Iterator[tuple[str, QuotaPart, str]]:
    """Yield (path, quota, name of its node) of every quota in the file, those that events set included."""
    for at, cohort in enumerate(scenario.cohorts):
        yield f"cohorts[{at}].quota", cohort.quota, cohort.name
    for at, tenant in enumerate(scenario.tenants):
        yield f"tenants[{at}].quota", tenant.quota, tenant.name
    for at, event in enumerate(scenario.events):
        if event.quota is not None:
            yield f"events[{at}].quota", event.quota, event.quota.tenant


def _quota_problems(path: str, part: QuotaPart, *, has_parent: bool, is_leaf: bool) -> Iterator[ScenarioError]:
    for model in part.models():
        if model in _NO_MODELS:
            yield ScenarioError(f"{path}.{model}", f"{model} {_NO_MODELS[model]}")
    for resource, quota in part.by_resource().items():
        field = f"{path}.{_FIELDS.get(resource, resource)}"
        if quota.borrowing_limit is not None and not has_parent:
            yield ScenarioError(f"{field}.borrow", "there is nobody to borrow from without a parent")
        # A node with others below it lends what they lend to it as well, so only a leaf's own quota bounds what it lends.
        if quota.lending_limit is not None and is_leaf and quota.lending_limit > quota.nominal:
            yield ScenarioError(f"{field}.lend", "is more than nominal")


def _reservation_problems(scenario: Scenario) -> Iterator[ScenarioError]:
    owned: dict[str, int] = {}
    for node in scenario.nodes:
        if node.gpu_model is not None:
            owned[node.gpu_model] = owned.get(node.gpu_model, 0) + node.gpus * MILLI * (node.count or 1)
    open_by_model: dict[str, list[tuple[int, int, ReservationPart]]] = {}
    windows: list[tuple[int, int, int, ReservationPart]] = []
    for section, parts in (
        ("capacity_reservations", scenario.capacity_reservations),
        ("maintenance_windows", scenario.maintenance_windows),
    ):
        for at, window in enumerate(parts):
            problem = calendar.problem(window)
            if problem is not None:
                yield ScenarioError(f"{section}[{at}].{problem[0]}", problem[1])
            elif isinstance(window, ReservationPart):
                windows += [(start_ms, at, end_ms, window) for start_ms, end_ms in calendar.occurrences(window)]
    # Only a start can make the sum exceed what there is, so the sum is taken at each start, in order of time.
    refused: set[int] = set()
    for start_ms, at, end_ms, part in sorted(windows, key=lambda item: item[:2]):
        beside = open_by_model.setdefault(part.gpu_model, [])
        while beside and beside[0][0] <= start_ms:
            heapq.heappop(beside)
        heapq.heappush(beside, (end_ms, at, part))
        asked = reduce(amount.add, (other.milli_gpu for _, _, other in beside))
        if asked > owned.get(part.gpu_model, 0) and at not in refused:
            refused.add(at)
            names = ", ".join(sorted(other.name for _, _, other in beside if other is not part))
            yield ScenarioError(
                f"capacity_reservations[{at}].gpus",
                f"at its start {_gpus(asked)} of {part.gpu_model} are set aside{f' together with {names}' if names else ''}, "
                f"the nodes have {_gpus(owned.get(part.gpu_model, 0))}",
            )


def _gpus(milli_gpu: int) -> str:
    if milli_gpu >= amount.UNLIMITED:
        return "unlimited GPUs"
    return f"{milli_gpu / MILLI:g} GPUs"
