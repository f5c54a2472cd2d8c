"""What a job may not be. Each refusal names the field and the limit, comes for one job as in a batch, and changes no row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.api.conftest import OpenApi
from tests.support.api import GIB, Api, Caller, problem_of, spec

LONG = "x" * 8_193
WITHOUT_GPUS: dict[str, Any] = {"gpus": 0, "flavors": [], "cpu_milli": 1_000}

# name -> (fields of the job, code, field, limit)
BAD: dict[str, tuple[dict[str, Any], str, str, Any]] = {
    "unknown flavor": ({"flavors": ["h900"]}, "unknown_flavor", "flavors[0]", ["a100", "h100", "h200", "l40s"]),
    "second flavor unknown": ({"flavors": ["h200", "h900"]}, "unknown_flavor", "flavors[1]", ["a100", "h100", "h200", "l40s"]),
    "flavor twice": ({"flavors": ["h200", "h200"]}, "flavor_twice", "flavors", 1),
    "flavor without quota": ({"flavors": ["h100"]}, "not_permitted", "flavors", ["cpu", "h200", "memory"]),
    "more than any node has": ({"gpus": 9}, "exceeds_maximum", "gpus", 8),
    "a gang larger than any node": ({"gpus": 4, "replicas": 3}, "exceeds_maximum", "replicas", 2),
    "more than the quota could give": ({"gpus": 8, "replicas": 3}, "exceeds_maximum", "gpus", 16),
    "more CPU than any node has": ({"cpu_milli": 64_001}, "exceeds_maximum", "cpu_milli", 64_000),
    "more memory than any node has": ({"memory_bytes": 513 * GIB}, "exceeds_maximum", "memory_bytes", 512 * GIB),
    "a gang with more CPU than any node": ({"cpu_milli": 40_000, "replicas": 2}, "exceeds_maximum", "replicas", 1),
    "a gang with more memory than any node": ({"memory_bytes": 200 * GIB, "replicas": 3}, "exceeds_maximum", "replicas", 2),
    "more CPU than the quota could give": ({"cpu_milli": 51_000}, "exceeds_maximum", "cpu_milli", 50_000),
    "more memory than the quota could give": ({"memory_bytes": 401 * GIB}, "exceeds_maximum", "memory_bytes", 400 * GIB),
    "zero replicas": ({"replicas": 0}, "invalid_request", "replicas", 1),
    "negative replicas": ({"replicas": -1}, "invalid_request", "replicas", 1),
    "too many replicas": ({"replicas": 1_025}, "invalid_request", "replicas", 1_024),
    "half a replica": ({"replicas": 1.5}, "invalid_request", "replicas", None),
    "replicas as a word": ({"replicas": "two"}, "invalid_request", "replicas", None),
    "replicas beyond any integer": ({"replicas": 10**30}, "invalid_request", "replicas", 1_024),
    "negative GPUs": ({"gpus": -1}, "invalid_request", "gpus", 0),
    "zero GPUs without CPUs": (WITHOUT_GPUS | {"cpu_milli": 0}, "nothing_asked_for", "cpu_milli", 1),
    "zero GPUs with flavors": (WITHOUT_GPUS | {"flavors": ["h200"]}, "flavors_without_gpus", "flavors", 0),
    "zero GPUs with more CPU than any node has": (WITHOUT_GPUS | {"cpu_milli": 64_001}, "exceeds_maximum", "cpu_milli", 64_000),
    "negative CPU": ({"cpu_milli": -1}, "invalid_request", "cpu_milli", 0),
    "negative memory": ({"memory_bytes": -1}, "invalid_request", "memory_bytes", 0),
    "time limit zero": ({"limit_seconds": 0}, "invalid_request", "limit_seconds", 1),
    "negative time limit": ({"limit_seconds": -5}, "invalid_request", "limit_seconds", 1),
    "time limit over the tier's": ({"limit_seconds": 24 * 3_600 + 1}, "limit_over_tier", "limit_seconds", 24 * 3_600),
    "time limit over any tier's": ({"limit_seconds": 10**9}, "invalid_request", "limit_seconds", 366 * 86_400),
    "unknown tier": ({"tier": "gold"}, "unknown_tier", "tier", ["long", "short", "standard"]),
    "unknown project": ({"project": "moonshot"}, "unknown_project", "project", ["default"]),
    "priority outside the tier": ({"priority": 1_001}, "priority_outside_tier", "priority", [-1_000, 1_000]),
    "priority beyond any": ({"priority": 10**7}, "invalid_request", "priority", 10**6),
    "unknown field": ({"gpu": 1}, "invalid_request", "gpu", None),
    "no entrypoint": ({"entrypoint": []}, "invalid_request", "entrypoint", 1),
    "entrypoint as one string": ({"entrypoint": "python train.py"}, "invalid_request", "entrypoint", None),
    "too many arguments": ({"entrypoint": ["x"] * 257}, "invalid_request", "entrypoint", 256),
    "an argument too long": ({"entrypoint": [LONG]}, "invalid_request", "entrypoint[0]", 8_192),
    "a null character in an argument": ({"entrypoint": ["a\0b"]}, "invalid_request", "entrypoint[0]", r"^[^\x00]*$"),
    "a null character in the environment": ({"environment": {"A": "\0"}}, "invalid_request", "environment.A", r"^[^\x00]*$"),
    "a null character in the requirements": ({"requirements": "a\0"}, "invalid_request", "requirements", r"^[^\x00]*$"),
    "an escape sequence in the name": ({"name": "\x1b[2J"}, "invalid_request", "name", r"^[^\x00-\x1f\x7f-\x9f]*$"),
    "an empty name": ({"name": ""}, "invalid_request", "name", 1),
    "a name too long": ({"name": "x" * 121}, "invalid_request", "name", 120),
    "a variable that is no name": ({"environment": {"A-B": "1"}}, "invalid_request", "environment.A-B.[key]", "^[A-Za-z_][A-Za-z0-9_]*$"),
    "too many variables": ({"environment": {f"A{n}": "" for n in range(129)}}, "invalid_request", "environment", 128),
    "zero attempts": ({"maximum_attempts": 0}, "invalid_request", "maximum_attempts", 1),
    "an archive that is no hash": ({"archive_sha256": "abc"}, "invalid_request", "archive_sha256", "^[0-9a-f]{64}$"),
    "an archive that was not uploaded": ({"archive_sha256": "0" * 64}, "archive_not_uploaded", "archive_sha256", None),
}  # fmt: skip


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of a tenant that may hold 16 GPUs, 50 CPUs and 400 GiB, on a fleet of one node with 8 GPUs, 64 CPUs and 512 GiB."""
    await api.node(gpus=8)
    await api.tenant(gpus=16)
    for resource, nominal in {"cpu": 50_000, "memory": 400 * GIB}.items():
        await api.operator.change("PUT", "/v1/quotas/acme", {"resource": resource, "nominal": nominal})
    return await api.user("member")


def refusals(cases: Mapping[str, tuple[Any, str, str, Any]]) -> dict[str, tuple[int, str, str, Any]]:
    """Return what each case must be answered with."""
    return {name: (422, code, field, limit) for name, (_, code, field, limit) in cases.items()}


async def test_bad_job_is_refused_with_field_and_limit_and_changes_nothing(api: Api, ada: Caller) -> None:
    before = await api.rows()

    answers = {name: await ada.post("/v1/jobs", spec(**fields)) for name, (fields, *_) in BAD.items()}

    assert {name: problem_of(answer) for name, answer in answers.items()} == {
        name: (422, *expected) for name, (_, *expected) in BAD.items()
    }
    assert await api.rows() == before


async def test_bad_job_in_a_batch_is_named_by_its_position_and_no_job_is_kept(api: Api, ada: Caller) -> None:
    before = await api.rows()

    answers = {
        name: await ada.post("/v1/jobs/batch", {"jobs": [spec(), spec(**fields), spec()]}, key=name) for name, (fields, *_) in BAD.items()
    }

    expected = {name: (422, code, f"jobs[1].{field}", limit) for name, (_, code, field, limit) in BAD.items()}
    assert {name: problem_of(answer) for name, answer in answers.items()} == expected
    assert await api.rows() == before


async def test_estimate_refuses_what_a_submit_refuses_and_keeps_nothing(api: Api, ada: Caller) -> None:
    asked = {name: case for name, case in BAD.items() if case[1] != "archive_not_uploaded"}  # an estimate needs no archive
    before = await api.rows()

    answers = {name: await ada.post("/v1/estimates", spec(**fields)) for name, (fields, *_) in asked.items()}

    assert {name: problem_of(answer) for name, answer in answers.items()} == {
        name: (422, *expected) for name, (_, *expected) in asked.items()
    }
    assert await api.rows() == before


@pytest.mark.parametrize(
    ("jobs", "limit"),
    [pytest.param([], 1, id="an empty batch"), pytest.param([spec()] * 1_001, 1_000, id="a batch of 1,001")],
)
async def test_batch_of_a_wrong_size_is_refused(api: Api, ada: Caller, jobs: list[Any], limit: int) -> None:
    answer = await ada.post("/v1/jobs/batch", {"jobs": jobs})

    assert problem_of(answer) == (422, "invalid_request", "jobs", limit)
    assert (await api.rows())["job"] == 0


async def test_refusal_rests_on_the_newest_quota(api: Api, ada: Caller) -> None:
    await ada.submit(cpu_milli=50_000)
    assert (await ada.post("/v1/jobs", spec(cpu_milli=60_000))).status_code == 422

    await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "cpu", "nominal": 60_000})

    assert (await ada.post("/v1/jobs", spec(cpu_milli=60_000))).status_code == 201


async def test_gang_over_several_nodes_is_taken_where_the_scheduler_places_it(open_api: OpenApi) -> None:
    api = await open_api(gangs_span_nodes=True)
    await api.node(gpus=8)
    await api.tenant(gpus=16)
    ada = await api.user("member")

    assert (await ada.submit(gpus=8, replicas=2))["state"] == "queued"


async def test_fleet_whose_nodes_have_not_reported_refuses_no_size(api: Api) -> None:
    await api.tenant(gpus=64)
    ada = await api.user("member")

    assert (await ada.submit(gpus=64))["state"] == "queued"


async def test_tenant_without_any_quota_is_told_so(api: Api) -> None:
    await api.tenant(gpus=None)
    ada = await api.user("member")

    answers = [await ada.post("/v1/jobs", spec()), await ada.post("/v1/jobs", spec(flavors=[]))]

    assert [problem_of(answer) for answer in answers] == [(422, "not_permitted", "flavors", [])] * 2


async def test_borrowing_counts_for_what_the_quota_could_give(api: Api) -> None:
    await api.tenant("acme", gpus=2, parent="fleet")
    await api.tenant("globex", gpus=4, parent="fleet")
    ada = await api.user("member")

    fits = await ada.post("/v1/jobs", spec(gpus=6))
    exceeds = await ada.post("/v1/jobs", spec(gpus=7))

    assert fits.status_code == 201
    assert problem_of(exceeds) == (422, "exceeds_maximum", "gpus", 6)
