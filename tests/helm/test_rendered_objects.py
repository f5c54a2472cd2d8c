from __future__ import annotations

from collections import Counter

import kubernetes_validate
import pytest

from tests.helm import rendering
from tests.helm.rendering import VALUES_FILES, Helm

pytestmark = [pytest.mark.helm, pytest.mark.timeout(1500)]

NAME_LENGTH_MAX = 63


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("values", VALUES_FILES)
def test_every_object_is_valid_for_kubernetes(helm: Helm, values: str, version: str) -> None:
    for manifest in helm.render(values):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_validation_refuses_a_misspelt_field(helm: Helm) -> None:
    deployment = rendering.of_kind(helm.render(), "Deployment")[0]
    rendering.container(deployment)["readinesProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


def test_default_values_render_exactly_these_objects(helm: Helm) -> None:
    kinds = Counter(manifest["kind"] for manifest in helm.render())

    assert kinds == {
        "Deployment": 2, "Service": 3, "ConfigMap": 1, "ServiceAccount": 1, "PersistentVolumeClaim": 1,
        "PodDisruptionBudget": 2, "NetworkPolicy": 2, "Job": 1,
    }  # fmt: skip


def test_bare_values_leave_out_everything_optional(helm: Helm) -> None:
    kinds = Counter(manifest["kind"] for manifest in helm.render("bare"))

    assert kinds == {"Deployment": 2, "Service": 3, "ConfigMap": 1, "PersistentVolumeClaim": 1}


@pytest.mark.parametrize("release", ["t", "a" * 53], ids=["a short release name", "the longest release name"])
def test_names_are_short_enough_and_different(helm: Helm, release: str) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in helm.render(release=release)]

    assert len(set(names)) == len(names)
    assert all(len(name) <= NAME_LENGTH_MAX for _, name in names)


@pytest.mark.parametrize("values", VALUES_FILES)
def test_services_select_pods_that_have_the_port(helm: Helm, values: str) -> None:
    manifests = helm.render(values)

    for service in rendering.of_kind(manifests, "Service"):
        (workload,) = rendering.selected(manifests, service["spec"]["selector"])
        names = {port["name"] for port in rendering.container(workload)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget"])
def test_each_selector_finds_exactly_its_own_pods(helm: Helm, kind: str) -> None:
    manifests = helm.render()

    for item in rendering.of_kind(manifests, kind):
        (workload,) = rendering.selected(manifests, item["spec"]["selector"]["matchLabels"])
        assert workload["metadata"]["name"] == item["metadata"]["name"]


def test_service_account_of_the_pods_is_the_one_created(helm: Helm) -> None:
    manifests = helm.render("production")

    accounts = {rendering.pod(item)["serviceAccountName"] for item in rendering.of_kind(manifests, "Deployment")}

    assert accounts == {account["metadata"]["name"] for account in rendering.of_kind(manifests, "ServiceAccount")} == {"terrace"}


def test_pods_restart_when_the_settings_change(helm: Helm) -> None:
    before, after = helm.render(), helm.render(settings={"TERRACED_LOG_LEVEL": "debug"})

    for old, new in zip(rendering.of_kind(before, "Deployment"), rendering.of_kind(after, "Deployment"), strict=True):
        assert old["spec"]["template"] != new["spec"]["template"]


def test_api_with_a_claim_of_one_node_is_stopped_before_it_is_replaced(helm: Helm) -> None:
    strategies = {
        values: rendering.named(helm.render(values), "Deployment", name)["spec"]["strategy"]["type"]
        for values, name in (("default", "terrace-api"), ("production", "gpu-exchange-api"))
    }

    assert strategies == {"default": "Recreate", "production": "RollingUpdate"}


def test_claim_with_the_archives_outlives_the_release(helm: Helm) -> None:
    claim = rendering.named(helm.render(), "PersistentVolumeClaim", "terrace-state")

    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_migration_runs_before_the_release_and_needs_nothing_of_it(helm: Helm) -> None:
    (job,) = rendering.of_kind(helm.render(), "Job")

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "serviceAccountName" not in rendering.pod(job)
    assert "envFrom" not in rendering.container(job)


def test_api_becomes_ready_without_anything_done_by_hand(helm: Helm) -> None:
    api = rendering.named(helm.render(), "Deployment", "terrace-api")
    (init,) = rendering.pod(api)["initContainers"]

    assert init["command"] == ["terraced", "init", "--no-migrate"]
    assert init["env"] == rendering.container(api)["env"]  # the key lands where the API's state lies
    assert init["volumeMounts"] == rendering.container(api)["volumeMounts"]


def test_chart_passes_helms_own_linter(helm: Helm) -> None:
    result = helm.run("lint", "--strict", str(rendering.CHART))

    assert result.returncode == 0, result.stdout
