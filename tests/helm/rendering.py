"""Rendering the chart and finding one's way in what came out.

It owns calling `helm template` and small questions about objects. It judges nothing: that is what the tests do.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "terrace"
VALUES = Path(__file__).resolve().parent / "values"
VALUES_FILES = sorted(path.stem for path in VALUES.glob("*.yaml"))
NAMESPACE = "terrace-system"
RENDER_SECONDS_MAX = 60

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Helm:
    """The engine's program and a home folder that holds no settings."""

    program: Path
    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm without a cluster, the network or a person's settings."""
        environment = {"HOME": str(self.home), "HELM_CONFIG_HOME": str(self.home), "KUBECONFIG": str(self.home / "none")}
        command = [str(self.program), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=RENDER_SECONDS_MAX, check=False)

    def render(self, values: str = "default", *, release: str = "terrace", **overrides: Any) -> list[Manifest]:
        """Return the objects of the chart with a file of `values/`; overrides are whole top-level values."""
        result = self.run(*self._template(values, release, overrides))
        assert result.returncode == 0, result.stderr
        return [document for document in yaml.safe_load_all(result.stdout) if document]

    def refusal(self, values: dict[str, Any]) -> str:
        """Return what helm says about bad values; the test fails if it takes them."""
        result = self.run(*self._template("default", "terrace", values))
        assert result.returncode != 0, "helm took the values"
        return result.stderr

    @staticmethod
    def _template(values: str, release: str, overrides: dict[str, Any]) -> list[str]:
        settings = [argument for name, value in overrides.items() for argument in ("--set-json", f"{name}={json.dumps(value)}")]
        return ["template", release, str(CHART), "--namespace", NAMESPACE, "--values", str(VALUES / f"{values}.yaml"), *settings]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the objects of one kind, in the order in which they were rendered."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one object of that kind and name."""
    (found,) = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name]
    return found


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    """Return everything that runs pods: Deployments and Jobs."""
    return of_kind(manifests, "Deployment") + of_kind(manifests, "Job")


def pod(workload: Manifest) -> Manifest:
    """Return the pod spec of a workload."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    """Return the one container of a workload."""
    (only,) = pod(workload)["containers"]
    found: Manifest = only
    return found


def containers(workload: Manifest) -> list[Manifest]:
    """Return every container of a workload, those that only prepare it included."""
    found: list[Manifest] = [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]
    return found


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[Manifest]:
    """Return the workloads whose pods carry all of `labels`."""
    return [item for item in workloads(manifests) if labels.items() <= item["spec"]["template"]["metadata"]["labels"].items()]
