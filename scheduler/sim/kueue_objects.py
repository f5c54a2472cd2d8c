"""The objects of Kueue that say who may hold what: flavors, cohorts, queues, priority classes, the configuration.

Owns their fields in v1beta1 and v1beta2 (and v1alpha1 of Cohort), brought to one form, with the defaults of the API server. Does
not own workloads (kueue_workloads.py) or what becomes of them in a scenario (kueue_tree.py). Every field that is not kept is named
in the notes. The versions differ in few names: `cohort` became `cohortName`, a cohort's `parent` became `parentName`, fair sharing
lost its `enable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from scheduler.sim.kueue_documents import Fields, Source
from scheduler.sim.problems import path_of

NEVER, LOWER_PRIORITY, TRY_NEXT_FLAVOR = "never", "lower_priority", "try_next_flavor"
WITHIN = {"Never": NEVER, "LowerPriority": LOWER_PRIORITY, "LowerOrNewerEqualPriority": "lower_or_newer_equal"}
RECLAIM = {"Never": NEVER, "LowerPriority": LOWER_PRIORITY, "Any": "any"}
BORROW = {"Never": NEVER, "LowerPriority": LOWER_PRIORITY}
STOP = {"None": "none", "Hold": "hold", "HoldAndDrain": "drain"}
STRATEGIES = ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]
_WHEN_CAN_BORROW = {"Borrow": "borrow", "MayStopSearch": "borrow", "TryNextFlavor": TRY_NEXT_FLAVOR}
_WHEN_CAN_PREEMPT = {"Preempt": "preempt", "MayStopSearch": "preempt", "TryNextFlavor": TRY_NEXT_FLAVOR}

_OPERATION = "says how the controller runs, not who is admitted"


@dataclass(frozen=True, slots=True)
class Taint:
    """What keeps pods off the nodes of a flavor unless they tolerate it."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """What lets a pod pass a taint. An empty key or effect means every one."""

    key: str
    operator: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Flavor:
    """A ResourceFlavor: which nodes it stands for."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class Amounts:
    """The quota of one resource in one flavor, and where it stands. None means no such limit."""

    path: str
    nominal: Fraction
    borrowing: Fraction | None
    lending: Fraction | None


@dataclass(frozen=True, slots=True)
class Group:
    """A resource group: flavors in order of preference, each with the quotas of its resources."""

    resources: tuple[str, ...]
    flavors: Mapping[str, Mapping[str, Amounts]]


@dataclass(frozen=True, slots=True)
class Cohort:
    """A Cohort; one that is only referred to has no object and no quota."""

    source: Source
    name: str
    parent: str | None
    weight: Fraction
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """A ClusterQueue."""

    source: Source
    name: str
    cohort: str | None
    weight: Fraction
    groups: tuple[Group, ...]
    within: str = NEVER
    reclaim: str = NEVER
    borrow: str = NEVER
    borrow_max_priority: int | None = None
    stop: str = "none"
    excluded_prefixes: tuple[str, ...] = ()
    when_can_borrow: str = "borrow"
    when_can_preempt: str = TRY_NEXT_FLAVOR


@dataclass(frozen=True, slots=True)
class LocalQueue:
    """A LocalQueue: the door of a namespace to a ClusterQueue."""

    cluster_queue: str
    stop: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the manager's configuration says about admission."""

    source: Source
    fair_sharing: bool
    excluded_prefixes: tuple[str, ...]


def flavor(fields: Fields) -> Flavor:
    """Read a ResourceFlavor."""
    name = metadata(fields)[1]
    with fields.mapping("spec") as spec:
        spec.leave_out("topologyName", "the made-up nodes have no topology")
        spec.leave_out("resourceWeights", "shares weigh all resources alike")
        taints = []
        for at in spec.items("nodeTaints"):
            at.ignore("timeAdded")
            taints.append(Taint(at.text("key") or "", at.text("value") or "", at.text("effect") or ""))
        return Flavor(name, spec.labels("nodeLabels"), tuple(taints), tolerations(spec))


def tolerations(fields: Fields) -> tuple[Toleration, ...]:
    """Read the tolerations of a flavor or a pod."""
    return tuple(
        Toleration(at.text("key") or "", at.text("operator") or "Equal", at.text("value") or "", at.text("effect") or "")
        for at in fields.items("tolerations")
    )


def cohort(fields: Fields) -> Cohort:
    """Read a Cohort."""
    name = metadata(fields)[1]
    fields.ignore("status")
    with fields.mapping("spec") as spec:
        parent = _renamed(spec, "parent", "parentName")
        groups = _groups(spec, has_parent=parent is not None, lends_at_most_nominal=False)
        return Cohort(fields.source, name, parent, _weight(spec), groups)


def queue(fields: Fields) -> Queue:
    """Read a ClusterQueue."""
    name = metadata(fields)[1]
    fields.ignore("status")
    with fields.mapping("spec") as spec:
        parent = _renamed(spec, "cohort", "cohortName")
        groups = _groups(spec, has_parent=parent is not None, lends_at_most_nominal=True)
        weight = _weight(spec)
        stop = spec.choice("stopPolicy", STOP, "none")
        if stop != "none":
            spec.note("stopPolicy", "a scenario cannot stop a queue; its quota stays, its pending workloads are left out")
        if spec.choice("queueingStrategy", {"BestEffortFIFO": "best", "StrictFIFO": "strict"}, "best") == "strict":
            spec.note("queueingStrategy", "StrictFIFO is left out: a job that waits for quota does not hold back younger ones")
        _namespaces(spec)
        when_can_borrow, when_can_preempt = _fungibility(spec)
        for key in ("admissionChecks", "admissionChecksStrategy"):
            spec.leave_out(key, "admission checks are not simulated; quota alone admits")
        spec.leave_out("admissionScope", "usage of LocalQueues over time is not carried over")
        spec.leave_out("concurrentAdmissionPolicy", "a job tries its flavors in order and does not move later")
        excluded = tuple(spec.texts("excludeResourcePrefixes"))
        with spec.mapping("preemption") as preemption:
            within = preemption.choice("withinClusterQueue", WITHIN, NEVER)
            reclaim = preemption.choice("reclaimWithinCohort", RECLAIM, NEVER)
            with preemption.mapping("borrowWithinCohort") as borrowing:
                borrow = borrowing.choice("policy", BORROW, NEVER)
                threshold = borrowing.integer("maxPriorityThreshold")
            if borrow != NEVER and reclaim == NEVER:
                raise preemption.error("borrowWithinCohort", "needs reclaimWithinCohort other than Never")
        return Queue(
            fields.source,
            name,
            parent,
            weight,
            groups,
            within,
            reclaim,
            borrow,
            threshold,
            stop,
            excluded,
            when_can_borrow,
            when_can_preempt,
        )


def local_queue(fields: Fields) -> LocalQueue:
    """Read a LocalQueue."""
    fields.ignore("status")
    with fields.mapping("spec") as spec:
        spec.required("clusterQueue")
        target = spec.name("clusterQueue") or ""
        stop = spec.choice("stopPolicy", STOP, "none")
        if stop != "none":
            spec.note("stopPolicy", "a scenario cannot stop a queue; its pending workloads are left out")
        spec.leave_out("fairSharing", "usage of LocalQueues over time is not carried over")
        spec.leave_out("wallTimePolicy", "a scenario has no budget of hours")
        return LocalQueue(target, stop)


def priority_class(fields: Fields) -> int:
    """Read the value of a PriorityClass or WorkloadPriorityClass."""
    fields.ignore("description", "preemptionPolicy", "globalDefault")
    fields.required("value")
    return fields.integer("value") or 0


def configuration(fields: Fields, *, version: str) -> Configuration:
    """Read the manager's Configuration. From v1beta2 on, fair sharing is on where it is configured at all."""
    fields.ignore("metadata")
    has_enable = version.endswith("v1beta1")
    sharing = fields.mapping("fairSharing")
    with sharing:
        enabled = sharing.flag("enable")
        is_fair = bool(enabled) if has_enable else fields.has("fairSharing") and enabled is not False
        strategies = sharing.texts("preemptionStrategies")
        for strategy in strategies:
            if strategy not in STRATEGIES:
                raise sharing.error("preemptionStrategies", f"must name {' or '.join(STRATEGIES)}, not {strategy[:80]!r}")
        if strategies not in ([], STRATEGIES):
            sharing.note("preemptionStrategies", f"always {', then '.join(STRATEGIES)}")
    with fields.mapping("resources") as resources:
        excluded = tuple(resources.texts("excludeResourcePrefixes"))
        resources.leave_out("transformations", "requests are taken as they are; convert them before")
        resources.leave_out("quotaCheckStrategy", "resources without quota never hold a job back")
    fields.leave_out("admissionFairSharing", "usage of LocalQueues over time is not carried over")
    fields.leave_out("waitForPodsReady", "pods are not simulated; a job runs from its start")
    fields.leave_out("multiKueue", "one cluster is simulated")
    for key in list(fields.values):
        fields.leave_out(key, _OPERATION)
    return Configuration(fields.source, is_fair, excluded)


def metadata(fields: Fields) -> tuple[str, str]:
    """Return (namespace, name); labels, annotations and bookkeeping say nothing about quotas."""
    inner = fields.mapping("metadata")
    inner.required("name")
    return inner.name("namespace") or "default", inner.name("name") or ""


def _renamed(spec: Fields, old: str, new: str) -> str | None:
    """Return a name that has one key in v1beta1 and another from v1beta2 on."""
    if spec.has(old) and spec.has(new):
        raise spec.error(old, f"stands beside {new}, which is its newer name")
    return spec.name(new) or spec.name(old)


def _weight(spec: Fields) -> Fraction:
    with spec.mapping("fairSharing") as sharing:
        weight = sharing.quantity("weight")
    return Fraction(1) if weight is None else weight


def _namespaces(spec: Fields) -> None:
    if "namespaceSelector" not in spec.values or not spec.has("namespaceSelector"):
        spec.note("namespaceSelector", "is not set, so Kueue admits from no namespace; the scenario admits what the LocalQueues send")
    else:
        spec.leave_out("namespaceSelector", "the scenario admits what the LocalQueues send, whatever their namespace")


def _fungibility(spec: Fields) -> tuple[str, str]:
    """Return (when can borrow, when can preempt), in the scenario's words."""
    with spec.mapping("flavorFungibility") as rules:
        rules.leave_out("preference", "the order of the flavors decides")
        return (
            rules.choice("whenCanBorrow", _WHEN_CAN_BORROW, "borrow"),
            rules.choice("whenCanPreempt", _WHEN_CAN_PREEMPT, TRY_NEXT_FLAVOR),
        )


def _groups(spec: Fields, *, has_parent: bool, lends_at_most_nominal: bool) -> tuple[Group, ...]:
    found: list[Group] = []
    for group in spec.items("resourceGroups"):
        with group:
            resources = tuple(group.texts("coveredResources"))
            flavors: dict[str, Mapping[str, Amounts]] = {}
            for part in group.items("flavors"):
                with part:
                    part.required("name")
                    name = part.name("name") or ""
                    if name in flavors or any(name in other.flavors for other in found):
                        raise part.error("name", f"{name} stands twice; a flavor belongs to one resource group")
                    flavors[name] = _amounts(part, resources, has_parent=has_parent, lends_at_most_nominal=lends_at_most_nominal)
                    for resource in (each for each in resources if each not in flavors[name]):
                        part.note("resources", f"names no quota for {resource}, which coveredResources lists: there is none")
            twice = next((each for each in resources if any(each in other.resources for other in found)), None)
            if twice is not None:
                raise group.error("coveredResources", f"{twice} stands twice; a resource belongs to one resource group")
            found.append(Group(resources, flavors))
    return tuple(found)


def _amounts(part: Fields, resources: tuple[str, ...], *, has_parent: bool, lends_at_most_nominal: bool) -> dict[str, Amounts]:
    found: dict[str, Amounts] = {}
    for resource in part.items("resources"):
        with resource:
            resource.required("name")
            name = resource.text("name") or ""
            if name not in resources:
                raise resource.error("name", f"{name} does not stand in coveredResources")
            if name in found:
                raise resource.error("name", f"{name} stands twice")
            resource.required("nominalQuota")
            nominal = resource.quantity("nominalQuota") or Fraction(0)
            amounts = Amounts(path_of(resource.path), nominal, resource.quantity("borrowingLimit"), resource.quantity("lendingLimit"))
            for key, limit in (("borrowingLimit", amounts.borrowing), ("lendingLimit", amounts.lending)):
                if limit is not None and not has_parent:
                    raise resource.error(key, "there is nobody to share with without a cohort above")
            if lends_at_most_nominal and amounts.lending is not None and amounts.lending > amounts.nominal:
                raise resource.error("lendingLimit", "is more than nominalQuota")
            found[name] = amounts
    return found
