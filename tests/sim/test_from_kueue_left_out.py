"""The report: every field that could not be kept, with file, document, path and why."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from scheduler.sim import kueue
from tests.sim.kueue_manifests import GPU, converted, flavor, group, manifest, notes, pods, queue, thing, workload

H200 = group({"h200": {GPU: 4}})
RDMA: dict[str, Any] = {"example.com/rdma": 1}
CONFIGURATION = {"apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration"}


def of_queue(**spec: Any) -> list[str]:
    """Return what is noted of a ClusterQueue with these fields, without where it stands."""
    where = "all.yaml: document 2 (ClusterQueue a): "
    found = notes(flavor(), queue("a", H200, **{"cohort": "c", **spec}))
    assert all(note.startswith(where) for note in found)
    return [note.removeprefix(where) for note in found]


def of_configuration(**fields: Any) -> tuple[bool, list[str]]:
    """Return whether fair sharing is on, and what is noted of a Configuration with these fields."""
    where = "all.yaml: document 1 (Configuration): "
    parts = [CONFIGURATION | fields, flavor(), queue("a", H200)]
    return converted(*parts)["policy"]["fair_sharing"], [note.removeprefix(where) for note in notes(*parts)]


def test_everything_kept_leaves_an_empty_report() -> None:
    assert of_queue(flavorFungibility={"whenCanBorrow": "MayStopSearch", "whenCanPreempt": "TryNextFlavor"}, stopPolicy="None") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            {"queueingStrategy": "StrictFIFO"},
            "spec.queueingStrategy: StrictFIFO is left out: a job that waits for quota does not hold back younger ones",
            id="StrictFIFO",
        ),
        pytest.param(
            {"namespaceSelector": {"matchLabels": {"team": "a"}}},
            "spec.namespaceSelector: the scenario admits what the LocalQueues send, whatever their namespace",
            id="a namespace selector",
        ),
        pytest.param(
            {"namespaceSelector": None},
            "spec.namespaceSelector: is not set, so Kueue admits from no namespace; the scenario admits what the LocalQueues send",
            id="no namespace selector",
        ),
        pytest.param(
            {"flavorFungibility": {"preference": "BorrowingOverPreemption"}},
            "spec.flavorFungibility.preference: the order of the flavors decides",
            id="preference between flavors",
        ),
        pytest.param(
            {"stopPolicy": "Hold"},
            "spec.stopPolicy: a scenario cannot stop a queue; its quota stays, its pending workloads are left out",
            id="stopPolicy",
        ),
        pytest.param(
            {"admissionChecks": ["provision"]},
            "spec.admissionChecks: admission checks are not simulated; quota alone admits",
            id="admissionChecks of v1beta1",
        ),
        pytest.param(
            {"admissionChecksStrategy": {"admissionChecks": [{"name": "provision"}]}},
            "spec.admissionChecksStrategy: admission checks are not simulated; quota alone admits",
            id="admissionChecksStrategy",
        ),
        pytest.param({"fieldOfTomorrow": 1}, "spec.fieldOfTomorrow: has no counterpart in a scenario", id="a field that is not known"),
        pytest.param(
            {"preemption": {"withinClusterQueue": "Never", "colour": "red"}},
            "spec.preemption.colour: has no counterpart in a scenario",
            id="a nested field that is not known",
        ),
    ],
)
def test_field_of_a_queue_is_named(spec: dict[str, Any], message: str) -> None:
    assert of_queue(**spec) == [message]


def test_second_resource_group_is_left_out() -> None:
    parts = [flavor(), flavor("net"), queue("a", H200, group({"net": {"example.com/rdma": 8}}))]
    where = "all.yaml: document 3 (ClusterQueue a): spec.resourceGroups[1]"
    assert notes(*parts) == [f"{where}: example.com/rdma: left out: a scenario has one resource group, and resourceGroups[0] is kept"]


def test_group_with_the_gpus_is_kept_wherever_it_stands() -> None:
    parts = [flavor(), flavor("cpus"), queue("a", group({"cpus": {"cpu": 8, "memory": "1Gi"}}), H200)]
    where = "all.yaml: document 3 (ClusterQueue a): spec.resourceGroups[0]"
    assert notes(*parts) == [f"{where}: cpu, memory: left out: a scenario has one resource group, and resourceGroups[1] is kept"]
    assert converted(*parts)["tenants"][0]["quota"] == {"h200": {"nominal": 4}}


def test_quota_of_a_cohort_that_no_queue_can_use_is_left_out() -> None:
    cohort = thing("Cohort", "c", {"resourceGroups": [group({"h200": {GPU: 1}, "l40s": {GPU: 2}})]})
    parts = [flavor(), flavor("l40s"), cohort, queue("a", H200, cohort="c")]
    reason = "l40s is left out: no ClusterQueue keeps quota of it"
    assert notes(*parts) == [f"all.yaml: document 3 (Cohort c): spec.resourceGroups[0].flavors: {reason}"]
    assert converted(*parts)["cohorts"] == [{"name": "c", "quota": {"h200": {"nominal": 1}}}]


def test_flavor_without_quota_of_a_covered_resource_is_named_and_not_permitted() -> None:
    partial = {"coveredResources": [GPU], "flavors": [*H200["flavors"], {"name": "l40s", "resources": []}]}
    parts = [flavor(), flavor("l40s"), queue("a", partial), workload("x", pods(gpu=1))]
    reason = f"names no quota for {GPU}, which coveredResources lists: there is none"
    assert notes(*parts) == [f"all.yaml: document 3 (ClusterQueue a): spec.resourceGroups[0].flavors[1].resources: {reason}"]
    assert converted(*parts)["jobs"][0]["gpu_model"] == "h200"


def test_requests_that_quota_does_not_cover_are_named_once_per_queue() -> None:
    jobs = [workload("x", pods(gpu=1, cpu=1, **RDMA)), workload("y", pods(gpu=1, cpu=1, **RDMA))]
    uncovered = "workloads ask for cpu, which it does not cover: unless Kueue is told to ignore the resource, it admits none of them"
    assert notes(flavor(), queue("a", H200), *jobs) == [
        f"all.yaml: document 2 (ClusterQueue a): spec.resourceGroups: {uncovered}; the scenario does not limit it",
        "all.yaml: document 4 (Workload x): spec.podSets: example.com/rdma is left out: a scenario has GPUs, CPUs and memory",
        "all.yaml: document 5 (Workload y): spec.podSets: example.com/rdma is left out: a scenario has GPUs, CPUs and memory",
    ]


def test_resources_that_kueue_is_told_to_ignore_are_no_loss() -> None:
    configuration = CONFIGURATION | {"resources": {"excludeResourcePrefixes": ["example.com"]}}
    parts = [configuration, flavor(), queue("a", H200, excludeResourcePrefixes=["cpu"]), workload("x", pods(gpu=1, cpu=1, **RDMA))]
    assert notes(*parts) == []
    assert converted(*parts)["jobs"] == [{"id": "x", "tenant": "a", "gpus": 1, "gpu_model": "h200"}]


@pytest.mark.parametrize(
    ("spec", "path", "reason"),
    [
        pytest.param({"minCount": 1}, "minCount", "partial admission is not simulated; all pods start together", id="minCount"),
        pytest.param({"topologyRequest": {"required": "rack"}}, "topologyRequest", "the made-up nodes have no topology", id="topology"),
        pytest.param(
            {"template": {"spec": {"containers": pods(gpu=1)["template"]["spec"]["containers"], "resourceClaims": [{"name": "g"}]}}},
            "template.spec.resourceClaims",
            "only resources that containers request are counted",
            id="resource claims",
        ),
    ],
)
def test_field_of_a_pod_set_is_named(spec: dict[str, Any], path: str, reason: str) -> None:
    where = "all.yaml: document 4 (Workload x): spec.podSets[0]"
    assert notes(flavor(), queue("a", H200), workload("x", pods(2, gpu=1) | spec)) == [f"{where}.{path}: {reason}"]


def test_pods_that_lose_their_shape_are_named() -> None:
    job = workload("x", pods(1, gpu=1), pods(3, "p1", gpu=2))
    reason = "4 pods become one replica that asks for their sum, because a gang has equal replicas of whole GPUs"
    assert notes(flavor(), queue("a", H200), job) == [f"all.yaml: document 4 (Workload x): spec.podSets: {reason}"]


@pytest.mark.parametrize(
    ("fields", "is_fair", "messages"),
    [
        pytest.param({}, False, [], id="not configured"),
        pytest.param({"fairSharing": {"preemptionStrategies": ["LessThanOrEqualToFinalShare", "LessThanInitialShare"]}}, True, [], id="on"),
        pytest.param({"fairSharing": {}}, True, [], id="present is on"),
        pytest.param({"apiVersion": "config.kueue.x-k8s.io/v1beta1", "fairSharing": {"enable": True}}, True, [], id="v1beta1 on"),
        pytest.param({"apiVersion": "config.kueue.x-k8s.io/v1beta1", "fairSharing": {"enable": False}}, False, [], id="v1beta1 off"),
        pytest.param({"apiVersion": "config.kueue.x-k8s.io/v1beta1", "fairSharing": {}}, False, [], id="v1beta1 present is off"),
        pytest.param(
            {"fairSharing": {"preemptionStrategies": ["LessThanInitialShare"]}},
            True,
            ["fairSharing.preemptionStrategies: always LessThanOrEqualToFinalShare, then LessThanInitialShare"],
            id="another strategy",
        ),
        pytest.param(
            {"admissionFairSharing": {"usageHalfLifeTime": "5m"}, "health": {"healthProbeBindAddress": ":8081"}},
            False,
            [
                "admissionFairSharing: usage of LocalQueues over time is not carried over",
                "health: says how the controller runs, not who is admitted",
            ],
            id="what else it says",
        ),
    ],
)
def test_configuration_turns_fair_sharing_on(fields: dict[str, Any], is_fair: bool, messages: list[str]) -> None:
    assert of_configuration(**fields) == (is_fair, messages)


def test_configuration_is_found_in_the_manager_s_config_map() -> None:
    data = {"controller_manager_config.yaml": yaml.safe_dump(CONFIGURATION | {"fairSharing": {}, "tls": {"minVersion": "x"}})}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kueue-manager-config"}, "data": data}
    found = kueue.convert({"all.yaml": manifest(config_map)})
    assert found.scenario["policy"]["fair_sharing"] is True
    assert [str(note) for note in found.notes] == [
        "all.yaml: document 1 (ConfigMap kueue-manager-config): data.controller_manager_config.yaml.tls: "
        "says how the controller runs, not who is admitted"
    ]


def test_borrowing_preemption_is_left_out_under_fair_sharing() -> None:
    preemption = {"reclaimWithinCohort": "Any", "borrowWithinCohort": {"policy": "LowerPriority"}}
    parts = [CONFIGURATION | {"fairSharing": {}}, flavor(), queue("a", H200, cohort="c", preemption=preemption)]
    assert converted(*parts)["tenants"][0]["preemption"] == {"reclaim_within_cohort": "any"}
    where = "all.yaml: document 3 (ClusterQueue a): spec.preemption.borrowWithinCohort"
    assert notes(*parts) == [f"{where}: left out: it has no effect under fair sharing"]


@pytest.mark.parametrize(
    ("version", "kind", "reason"),
    [
        pytest.param("batch/v1", "Job", "left out: Kueue makes a Workload of it, and Workloads are read", id="a job"),
        pytest.param("v1", "Namespace", "left out: this kind has no counterpart in a scenario", id="another kind"),
        pytest.param("kueue.x-k8s.io/v1beta2", "AdmissionCheck", "this kind has no counterpart in a scenario", id="another kind of Kueue"),
        pytest.param(
            "kueue.x-k8s.io/v1alpha1", "Workload", "kueue.x-k8s.io/v1alpha1 is left out: v1beta1, v1beta2 are read", id="an old version"
        ),
    ],
)
def test_document_of_another_kind_is_named(version: str, kind: str, reason: str) -> None:
    assert notes(thing(kind, "x", {"a": 1}, version=version)) == [f"all.yaml: document 1 ({kind} x): {reason}"]


def test_what_is_made_up_is_said() -> None:
    found = kueue.convert({"all.yaml": manifest(queue("a", H200), workload("x", pods(gpu=1)))})
    assert [str(note) for note in found.notes] == [
        "scenario: ResourceFlavor h200: is not in the files: taken as one without labels and taints",
        "scenario: maximumExecutionTimeSeconds: 1 of the workloads name none: they get a day from now; "
        "run is not known and equals the limit",
        "scenario: nodes: made up, large enough for all quotas, because Kueue has no nodes; put in your own",
    ]
