"""Kueue manifests by builder, in the shapes that the concept pages show.

Owns defaults that most conversion tests share: GPUs of one flavor h200, one LocalQueue `main` in namespace `team` per ClusterQueue,
pods with one container. `v1beta1` names differ from `v1beta2`; a builder takes the version where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from scheduler.sim import kueue, reading
from scheduler.sim.answers import answer

GPU = "nvidia.com/gpu"
Object = dict[str, Any]


def thing(kind: str, name: str, spec: Object, *, version: str = "kueue.x-k8s.io/v1beta2", **more: Any) -> Object:
    metadata = {"name": name, **more.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, **more}


def flavor(name: str = "h200", **spec: Any) -> Object:
    return thing("ResourceFlavor", name, spec)


def group(flavors: Mapping[str, Mapping[str, Any]]) -> Object:
    """Return a resource group: flavor -> resource -> nominal quota, or a mapping with limits beside it."""
    resources = list(dict.fromkeys(resource for quotas in flavors.values() for resource in quotas))
    parts = [
        {"name": name, "resources": [{"name": resource, **_amounts(amount)} for resource, amount in quotas.items()]}
        for name, quotas in flavors.items()
    ]
    return {"coveredResources": resources, "flavors": parts}


def _amounts(amount: Any) -> Object:
    return amount if isinstance(amount, dict) else {"nominalQuota": amount}


def queue(name: str, *groups: Object, cohort: str | None = None, **spec: Any) -> list[Object]:
    """Return a ClusterQueue and its LocalQueue, which has the same name."""
    body = {"namespaceSelector": {}, "resourceGroups": list(groups), **spec}
    if cohort is not None:
        body["cohortName"] = cohort
    local = thing("LocalQueue", name, {"clusterQueue": name}, metadata={"namespace": "team"})
    return [thing("ClusterQueue", name, body), local]


def pods(count: int = 1, name: str = "main", *, template: Object | None = None, **requests: Any) -> Object:
    """Return a pod set; `gpu` stands for the GPU resource."""
    asked = {GPU if resource == "gpu" else resource: amount for resource, amount in requests.items()}
    container = {"name": "c", "image": "train:1", "resources": {"requests": asked}}
    return {"name": name, "count": count, "template": {"spec": {"containers": [container], **(template or {})}}}


def workload(
    name: str, *pod_sets: Object, queue: str = "a", created: str | None = None, status: Object | None = None, **spec: Any
) -> Object:
    metadata = {"namespace": "team"} | ({"creationTimestamp": created} if created else {})
    body = {"queueName": queue, "podSets": list(pod_sets), **spec}
    found = thing("Workload", name, body, metadata=metadata)
    return found | ({"status": status} if status else {})


def admitted(queue: str, since: str, *flavors: str, resource: str = GPU) -> Object:
    """Return the status of a workload that holds quota; one flavor per pod set, `main` first, then p1, p2."""
    names = ["main", *(f"p{at}" for at in range(1, len(flavors)))]
    assignments = [{"name": name, "flavors": {resource: flavor}} for name, flavor in zip(names, flavors, strict=True)]
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": since} for kind in ("QuotaReserved", "Admitted")]
    return {"admission": {"clusterQueue": queue, "podSetAssignments": assignments}, "conditions": conditions}


def manifest(*parts: Any) -> str:
    """Return the text of a file with these objects, one document each."""
    return yaml.safe_dump_all(flat for part in parts for flat in (part if isinstance(part, list) else [part]))


def converted(*parts: Any, gpu_resource: str = GPU) -> Object:
    """Return the scenario, which must be a valid one."""
    scenario = kueue.convert({"all.yaml": manifest(*parts)}, gpu_resource=gpu_resource).scenario
    assert reading.examine(kueue.to_yaml(scenario))[1] == []
    return scenario


def notes(*parts: Any, gpu_resource: str = GPU) -> list[str]:
    """Return what was left out, as printed, without what concerns the whole scenario."""
    return [str(note) for note in kueue.convert({"all.yaml": manifest(*parts)}, gpu_resource=gpu_resource).notes if note.source]


def decided(*parts: Any, gpu_resource: str = GPU) -> Object:
    """Return who starts and why the others wait: {"starts": [ids], "waiting": {id: code}}."""
    found = answer(reading.read(kueue.to_yaml(converted(*parts, gpu_resource=gpu_resource))))
    return {"starts": [start["job"] for start in found["starts"]], "waiting": {item["job"]: item["code"] for item in found["waiting"]}}
