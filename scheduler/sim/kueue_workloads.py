"""Workloads: what each asks for, where it waits, and what it holds.

Owns the fields of a Workload in v1beta1 and v1beta2 and the reading of its conditions. Does not own pods (kueue_pods.py) or what
becomes of a workload in a scenario (kueue_jobs.py). What Kueue counted itself (`status.admission`, `status.resourceRequests`)
wins over the pod templates, because limit ranges and runtime classes are already in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from scheduler.sim import kueue_pods
from scheduler.sim.kueue_documents import Fields, Source
from scheduler.sim.kueue_objects import metadata
from scheduler.sim.kueue_pods import Demands

POD_SETS_MAXIMUM = 64
YEAR_MINIMUM, YEAR_MAXIMUM = 1970, 2200  # what lies between is fewer seconds than a scenario can say
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLASS_SOURCES = {
    "": "",
    "kueue.x-k8s.io/workloadpriorityclass": "WorkloadPriorityClass",
    "scheduling.k8s.io/priorityclass": "PriorityClass",
}


@dataclass(frozen=True, slots=True)
class PodSet:
    """Equal pods of a workload. `flavors` are those that Kueue assigned, empty while it waits."""

    name: str
    count: int
    requests: Mapping[str, Fraction]  # of one pod
    demands: Demands
    flavors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Workload:
    """One Workload. Times are UTC milliseconds; None where the file does not tell."""

    source: Source
    namespace: str
    name: str
    local_queue: str | None
    cluster_queue: str | None  # the one that admitted it
    pod_sets: tuple[PodSet, ...]
    priority: int | None
    priority_class: tuple[str, str] | None  # kind and name
    is_active: bool
    is_finished: bool
    created_ms: int | None
    reserved_ms: int | None
    newest_ms: int | None  # the latest moment that the workload tells of
    limit_seconds: int | None
    spent_seconds: int

    @property
    def holds_quota(self) -> bool:
        """Tell whether the workload runs, as far as quota is concerned."""
        return self.cluster_queue is not None and not self.is_finished


def workload(fields: Fields) -> Workload:
    """Read a Workload."""
    namespace, name = metadata(fields)
    created_ms = _time(fields.mapping("metadata"), "creationTimestamp")
    spec, status = fields.mapping("spec"), fields.mapping("status")
    with spec, status:
        conditions = _conditions(status)
        cluster_queue, assigned = _admission(status, conditions)
        counted = {part.text("name") or "main": part.quantities("resources") for part in status.items("resourceRequests")}
        reclaimed = {part.text("name") or "main": part.integer("count", minimum=0) or 0 for part in status.items("reclaimablePods")}
        pod_sets = []
        for part in spec.items("podSets"):
            with part:
                pod_sets.append(_pod_set(part, assigned, counted, reclaimed if assigned else {}))
        if len(pod_sets) > POD_SETS_MAXIMUM:
            raise spec.error("podSets", f"has more than {POD_SETS_MAXIMUM} entries")
        _left_out(status)
        is_active = spec.flag("active") is not False
        return Workload(
            source=fields.source,
            namespace=namespace,
            name=name,
            local_queue=spec.name("queueName"),
            cluster_queue=cluster_queue,
            pod_sets=tuple(pod_sets),
            priority=spec.integer("priority"),
            priority_class=_priority_class(spec),
            is_active=is_active,
            is_finished=conditions.get("Finished", (False, None))[0],
            created_ms=created_ms,
            reserved_ms=_reserved(conditions),
            newest_ms=max([time for time in (created_ms, *(at for _, at in conditions.values())) if time is not None], default=None),
            limit_seconds=spec.integer("maximumExecutionTimeSeconds", minimum=1),
            spent_seconds=_spent(status),
        )


def _time(fields: Fields, key: str) -> int | None:
    text = fields.text(key)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise fields.error(key, f"must be a time such as 2026-01-31T09:00:00Z, not {text[:40]!r}") from None
    if not YEAR_MINIMUM <= found.year < YEAR_MAXIMUM:
        raise fields.error(key, f"must lie between {YEAR_MINIMUM} and {YEAR_MAXIMUM}, not {text[:40]}")
    return (found.replace(tzinfo=found.tzinfo or UTC) - _EPOCH) // timedelta(milliseconds=1)


def _conditions(status: Fields) -> dict[str, tuple[bool, int | None]]:
    """Return type -> (holds, since when)."""
    found = {}
    for part in status.items("conditions"):
        found[part.text("type") or ""] = (part.text("status") == "True", _time(part, "lastTransitionTime"))
    return found


def _reserved(conditions: Mapping[str, tuple[bool, int | None]]) -> int | None:
    """Return since when quota is held: Kueue calls a workload newer by this time."""
    for kind in ("QuotaReserved", "Admitted"):
        holds, since_ms = conditions.get(kind, (False, None))
        if holds and since_ms is not None:
            return since_ms
    return None


def _admission(status: Fields, conditions: Mapping[str, tuple[bool, int | None]]) -> tuple[str | None, dict[str, Fields]]:
    """Return the queue that admitted the workload and the assignment of each pod set, nothing while it waits."""
    admission = status.mapping("admission")
    if not admission.values or not conditions.get("QuotaReserved", (True, None))[0]:
        return None, {}
    with admission:
        admission.required("clusterQueue")
        assignments = {part.text("name") or "main": part for part in admission.items("podSetAssignments")}
        if conditions and not conditions.get("Admitted", (False, None))[0]:
            status.note("admission", "its admission checks are still open; it holds quota, so it counts as running")
        if conditions.get("Evicted", (False, None))[0]:
            status.note("conditions", "it is being evicted; it still holds quota, so it counts as running")
        return admission.name("clusterQueue"), assignments


def _pod_set(
    part: Fields, assigned: Mapping[str, Fields], counted: Mapping[str, Mapping[str, Fraction]], reclaimed: Mapping[str, int]
) -> PodSet:
    name = part.text("name") or "main"
    count = part.integer("count", minimum=0)
    count = 1 if count is None else count
    part.leave_out("minCount", "partial admission is not simulated; all pods start together")
    part.leave_out("topologyRequest", "the made-up nodes have no topology")
    pod = part.mapping("template").mapping("spec")
    pod.leave_out("resourceClaims", "only resources that containers request are counted")
    requests: Mapping[str, Fraction] = kueue_pods.requests(pod)
    flavors: dict[str, str] = {}
    if name in assigned:
        assignment = assigned[name]
        given_flavors = assignment.mapping("flavors")
        flavors = {resource: given_flavors.name(resource) or "" for resource in given_flavors.values}
        given = assignment.integer("count", minimum=0)
        count = count if given is None else given
        if assignment.has("resourceUsage"):
            requests = _of_one(assignment.quantities("resourceUsage"), count)
    elif name in counted:
        requests = _of_one(counted[name], count)
    return PodSet(name, max(count - reclaimed.get(name, 0), 0), requests, kueue_pods.demands(pod), flavors)


def _of_one(total: Mapping[str, Fraction], count: int) -> dict[str, Fraction]:
    return {resource: amount / count for resource, amount in total.items()} if count else {}


def _priority_class(spec: Fields) -> tuple[str, str] | None:
    """Return kind and name: a reference from v1beta2 on, a name and its source before."""
    with spec.mapping("priorityClassRef") as reference:
        reference.ignore("group")
        name = reference.text("name")
        if name is not None:
            return reference.text("kind") or "WorkloadPriorityClass", name
    kind = spec.choice("priorityClassSource", _CLASS_SOURCES, "")
    name = spec.text("priorityClassName")
    return None if name is None else (kind or "PriorityClass", name)


def _spent(status: Fields) -> int:
    # v1beta1 has the second name, misspelt as it is.
    for key in ("accumulatedPastExecutionTimeSeconds", "accumulatedPastExexcutionTimeSeconds"):
        spent = status.integer(key, minimum=0)
        if spent is not None:
            return spent
    return 0


def _left_out(status: Fields) -> None:
    status.ignore("conditions", "admission", "schedulingStats", "admissionChecks")
    status.leave_out("requeueState", "a waiting time before the next try is not simulated; it may start at once")
    for key in ("clusterName", "nominatedClusterNames"):
        status.leave_out(key, "one cluster is simulated")
    status.leave_out("unhealthyNodes", "the made-up nodes are healthy")
