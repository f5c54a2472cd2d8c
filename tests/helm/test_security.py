from __future__ import annotations

import pytest

from terraced import settings
from tests.helm import rendering
from tests.helm.rendering import VALUES_FILES, Helm, Manifest

pytestmark = [pytest.mark.helm, pytest.mark.timeout(1500)]


@pytest.fixture(params=VALUES_FILES)
def manifests(helm: Helm, request: pytest.FixtureRequest) -> list[Manifest]:
    return helm.render(request.param)


def test_no_pod_has_a_privilege_or_a_token(manifests: list[Manifest]) -> None:
    for workload in rendering.workloads(manifests):
        pod, securities = rendering.pod(workload), [only["securityContext"] for only in rendering.containers(workload)]
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        closed = {"allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert securities == [closed] * len(securities)


def test_pods_write_only_to_bounded_volumes(manifests: list[Manifest]) -> None:
    for workload in rendering.workloads(manifests):
        for volume in rendering.pod(workload)["volumes"]:
            assert "persistentVolumeClaim" in volume or volume["emptyDir"]["sizeLimit"], volume
        mounts = {mount["name"] for only in rendering.containers(workload) for mount in only["volumeMounts"]}
        assert mounts == {volume["name"] for volume in rendering.pod(workload)["volumes"]}


def test_every_container_has_requests_and_limits(manifests: list[Manifest]) -> None:
    for workload in rendering.workloads(manifests):
        for only in rendering.containers(workload):
            assert {*only["resources"]["requests"]} == {*only["resources"]["limits"]} == {"cpu", "memory"}


def test_deployments_are_probed_for_start_readiness_and_life(manifests: list[Manifest]) -> None:
    for deployment in rendering.of_kind(manifests, "Deployment"):
        only = rendering.container(deployment)
        ports = {port["name"] for port in only["ports"]}
        assert {only[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} <= ports


def test_database_address_comes_from_the_secret_only(manifests: list[Manifest]) -> None:
    for workload in rendering.workloads(manifests):
        for only in rendering.containers(workload):
            sources = {entry["name"]: entry.get("valueFrom", {}) for entry in only["env"]}
            assert set(sources["TERRACED_DATABASE_URL"]) == {"secretKeyRef"}
    assert not rendering.of_kind(manifests, "Secret")
    assert all("TERRACED_DATABASE_URL" not in config["data"] for config in rendering.of_kind(manifests, "ConfigMap"))


def test_every_environment_name_is_a_setting_of_the_service(manifests: list[Manifest]) -> None:
    known = {name for name, _, _ in settings.documented()}
    given = {name for config in rendering.of_kind(manifests, "ConfigMap") for name in config["data"]}
    given |= {
        entry["name"] for workload in rendering.workloads(manifests) for only in rendering.containers(workload) for entry in only["env"]
    }

    assert given <= known


def test_pods_of_the_release_are_closed_unless_a_policy_opens_them(helm: Helm) -> None:
    policy = rendering.named(helm.render(), "NetworkPolicy", "terrace")["spec"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert len(rendering.selected(helm.render(), policy["podSelector"]["matchLabels"])) == 3


def test_pods_reach_names_and_the_database_only(helm: Helm) -> None:
    egress = rendering.named(helm.render("production"), "NetworkPolicy", "gpu-exchange")["spec"]["egress"]

    assert [port["port"] for rule in egress for port in rule["ports"]] == [53, 53, 6432]
    assert egress[1]["to"] == [{"ipBlock": {"cidr": "192.0.2.10/32"}}]


def test_policies_open_the_ports_that_the_pods_listen_on(manifests: list[Manifest]) -> None:
    for policy in rendering.of_kind(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            (workload,) = rendering.selected(manifests, policy["spec"]["podSelector"]["matchLabels"])
            listening = {port["containerPort"] for port in rendering.container(workload)["ports"]}
            assert {port["port"] for port in rule["ports"]} == listening


def test_metrics_of_the_scheduler_are_open_to_the_named_sources_only(helm: Helm) -> None:
    (rule,) = rendering.named(helm.render("production"), "NetworkPolicy", "gpu-exchange-scheduler")["spec"]["ingress"]

    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}, "podSelector": {"matchLabels": {}}}
    ]


def test_digest_wins_over_the_tag(helm: Helm) -> None:
    images = {rendering.container(workload)["image"] for workload in rendering.workloads(helm.render("production"))}

    assert images == {"registry.example:5000/terrace/service@sha256:" + "0123456789abcdef" * 4}
