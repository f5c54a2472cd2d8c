from __future__ import annotations

from typing import Any

import pytest

from tests.helm.rendering import Helm

pytestmark = [pytest.mark.helm, pytest.mark.timeout(1500)]

REFUSED = [
    pytest.param({"replicas": 3}, "replicas", id="an unknown name at the top"),
    pytest.param({"api.replcas": 3}, "replcas", id="a misspelt name below"),
    pytest.param({"api.replicas": 0}, "/api/replicas", id="no replica"),
    pytest.param({"api.replicas": "2"}, "/api/replicas", id="a number as text"),
    pytest.param({"api.port": 80}, "/api/port", id="a port that needs root"),
    pytest.param({"image.digest": "sha256:abc"}, "/image/digest", id="half a digest"),
    pytest.param({"image.repository": ""}, "/image/repository", id="no image"),
    pytest.param({"image.pullPolicy": "Sometimes"}, "/image/pullPolicy", id="an unknown pull policy"),
    pytest.param({"database.secretName": ""}, "/database/secretName", id="no database Secret"),
    pytest.param({"database.url": "postgresql"}, "url", id="a database address in plain sight"),
    pytest.param({"settings": {"TERRACED_DATABASE_URL": "x"}}, "TERRACED_DATABASE_URL", id="the address among the settings"),
    pytest.param({"settings": {"TERRACED_PORT": "1"}}, "TERRACED_PORT", id="a setting that the chart makes"),
    pytest.param({"settings": {"PATH": "x"}}, "PATH", id="a setting that is not the service's"),
    pytest.param({"scheduler.resources.limits.memory": "lots"}, "/scheduler/resources/limits/memory", id="a size without a number"),
    pytest.param({"api.tolerations": [{"key": "a", "efect": "NoSchedule"}]}, "efect", id="a misspelt name inside a list"),
    pytest.param({"networkPolicy.apiFrom": [{"cidr": "10.0.0.0"}]}, "/networkPolicy/apiFrom/0/cidr", id="an address without a range"),
    pytest.param({"networkPolicy.apiFrom": [{"cidr": "10.0.0.0/8", "podLabels": {}}]}, "podLabels", id="a range with labels"),
    pytest.param({"networkPolicy.apiFrom": [{}]}, "/networkPolicy/apiFrom/0", id="a peer that says nothing"),
    pytest.param({"service.type": "ExternalName"}, "/service/type", id="an unknown service type"),
    pytest.param({"api.replicas": 2}, "state.accessMode", id="two replicas on a claim of one node"),
    pytest.param({"api.drainSeconds": 60}, "api.terminationGraceSeconds", id="draining longer than the stop may take"),
]


@pytest.mark.parametrize(("values", "named"), REFUSED)
def test_bad_value_is_refused_by_name(helm: Helm, values: dict[str, Any], named: str) -> None:
    complaint = helm.refusal(values).replace(".", "/") if named.startswith("/") else helm.refusal(values)

    assert named in complaint
