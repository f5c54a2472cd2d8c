"""From Kueue's manifests to a scenario: texts in, the scenario and what it had to leave out.

Owns the order of the steps and the text of the result. Does not own files or printing (terraced/scenario_commands.py); nothing here
reads a file or a clock. Called by `terraced scenario from-kueue`. The parts stand on their own: `manifests` reads, `kueue_tree.build`
makes the quota tree, which is all that an import of quotas needs, `convert` does the whole. A converted scenario has Kueue's rules: no
fair sharing unless a Configuration says so, no memory of usage, newest victims first, nobody holds a start time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from scheduler.sim import kueue_documents, kueue_jobs, kueue_nodes, kueue_objects, kueue_tree, kueue_workloads
from scheduler.sim.kueue_documents import Fields, KueueError, Note
from scheduler.sim.kueue_jobs import Admission
from scheduler.sim.kueue_objects import Cohort, Configuration, Flavor, LocalQueue, Queue
from scheduler.sim.kueue_workloads import Workload
from scheduler.sim.scenario import VERSION

GPU_RESOURCE = "nvidia.com/gpu"

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_KUEUE = "kueue.x-k8s.io"
_VERSIONS = ("v1beta1", "v1beta2")
_COHORT_VERSIONS = ("v1alpha1", *_VERSIONS)  # the concept pages show cohorts in v1alpha1
_CONFIGURATION = "config.kueue.x-k8s.io"
_PRIORITY_CLASS = "scheduling.k8s.io"


@dataclass(slots=True)
class Manifests:
    """The objects in the files, in their order."""

    flavors: dict[str, Flavor] = field(default_factory=dict)
    cohorts: dict[str, Cohort] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    local_queues: dict[tuple[str, str], LocalQueue] = field(default_factory=dict)
    classes: dict[tuple[str, str], int] = field(default_factory=dict)  # by kind and name
    workloads: dict[tuple[str, str], Workload] = field(default_factory=dict)
    configuration: Configuration | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """The scenario as a mapping in the file's own words, and every field that it could not keep."""

    scenario: dict[str, Any]
    notes: tuple[Note, ...]


def convert(texts: Mapping[str, str], *, gpu_resource: str = GPU_RESOURCE) -> Conversion:
    """Convert the manifests in `texts`, by file name; `KueueError` names the field that Kubernetes would refuse."""
    notes: list[Note] = []
    found = manifests(texts, notes)
    tree = kueue_tree.build(found.cohorts, found.queues, found.flavors, gpu_resource=gpu_resource, notes=notes)
    configured = found.configuration
    excluded = configured.excluded_prefixes if configured else ()
    admission = Admission(found.queues, found.local_queues, found.flavors, found.classes, excluded, gpu_resource)
    jobs = kueue_jobs.build(list(found.workloads.values()), tree, admission, notes)
    nodes = kueue_nodes.build(tree, jobs, notes)
    is_fair = configured is not None and configured.fair_sharing
    sections = {
        "nodes": nodes,
        "cohorts": tree.cohorts,
        "tenants": [_without_borrowing(entry, found.queues, notes) for entry in tree.tenants] if is_fair else tree.tenants,
        "running": jobs.running,
        "jobs": jobs.queued,
    }
    scenario = {
        "scenario": VERSION,
        "now": 0,
        "policy": {"fair_sharing": is_fair, "fair_share_half_life": 0, "backfill_depth": 0, "victims": "kueue"},
        **{name: entries for name, entries in sections.items() if entries},
    }
    return Conversion(scenario, tuple(dict.fromkeys(notes)))  # what holds for a queue is noted for each of its workloads


def manifests(texts: Mapping[str, str], notes: list[Note]) -> Manifests:
    """Read the objects that say something about quotas and jobs; what else there is, is noted."""
    found = Manifests()
    for version, kind, fields in kueue_documents.objects(texts, notes):
        group, _, number = version.rpartition("/")
        if (group, kind) == (_CONFIGURATION, "Configuration") and number in _VERSIONS:
            if found.configuration is not None:
                raise KueueError(fields.source, "", f"is a second Configuration, the first is {found.configuration.source}")
            with fields:
                found.configuration = kueue_objects.configuration(fields, version=number)
        elif group == _KUEUE and number in (_COHORT_VERSIONS if kind == "Cohort" else _VERSIONS):
            _read(found, kind, fields)
        elif (group, kind) == (_PRIORITY_CLASS, "PriorityClass"):
            with fields:
                _add(found.classes, (kind, kueue_objects.metadata(fields)[1]), kueue_objects.priority_class(fields), fields)
        else:
            notes.append(Note(fields.source, "", _unread(group, version, kind)))
    return found


def _read(found: Manifests, kind: str, fields: Fields) -> None:
    with fields:
        name = kueue_objects.metadata(fields)
        if kind == "ResourceFlavor":
            _add(found.flavors, name[1], kueue_objects.flavor(fields), fields)
        elif kind == "Cohort":
            _add(found.cohorts, name[1], kueue_objects.cohort(fields), fields)
        elif kind == "ClusterQueue":
            _add(found.queues, name[1], kueue_objects.queue(fields), fields)
        elif kind == "LocalQueue":
            _add(found.local_queues, name, kueue_objects.local_queue(fields), fields)
        elif kind == "WorkloadPriorityClass":
            _add(found.classes, (kind, name[1]), kueue_objects.priority_class(fields), fields)
        elif kind == "Workload":
            _add(found.workloads, name, kueue_workloads.workload(fields), fields)
        else:
            fields.notes.append(Note(fields.source, "", "this kind has no counterpart in a scenario"))
            fields.ignore(*fields.values)


def _add(known: dict[_Key, _Value], key: _Key, value: _Value, fields: Fields) -> None:
    if key in known:
        raise KueueError(fields.source, "metadata.name", "stands twice in the files")
    known[key] = value


def _unread(group: str, version: str, kind: str) -> str:
    if group in (_KUEUE, _CONFIGURATION):
        return f"{version} is left out: {', '.join(_VERSIONS)} are read"
    if kind in ("Job", "JobSet", "RayJob", "RayCluster", "PyTorchJob", "MPIJob", "Pod"):
        return "left out: Kueue makes a Workload of it, and Workloads are read"
    return "left out: this kind has no counterpart in a scenario"


def _without_borrowing(entry: dict[str, Any], queues: Mapping[str, Queue], notes: list[Note]) -> dict[str, Any]:
    """Return a tenant for fair sharing, under which Kueue ignores borrowWithinCohort and a scenario refuses it."""
    preemption = dict(entry.get("preemption", {}))
    if "borrow_within_cohort" not in preemption:
        return entry
    notes.append(Note(queues[entry["name"]].source, "spec.preemption.borrowWithinCohort", "left out: it has no effect under fair sharing"))
    del preemption["borrow_within_cohort"]
    return {**entry, "preemption": preemption}


def to_yaml(scenario: Mapping[str, Any]) -> str:
    """Return the text of a scenario file: a line per node, cohort, tenant and job."""
    lines = []
    for key, value in scenario.items():
        if isinstance(value, list):
            lines.append(f"{key}:")
            lines.extend(f"  - {_flow(entry)}" for entry in value)
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=2**31, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
