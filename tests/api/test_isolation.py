"""Somebody else's object answers as one that is not there does, on every route that takes a name.

The routes come from the OpenAPI document, so that a new one is tested without being listed. A new kind of name in a path fails in
`test_every_name_in_a_path_is_known` until it gets an object of globex's.
"""

from __future__ import annotations

from typing import Any

import pytest

from api.permissions import ROLE_PERMISSIONS
from tests.support.api import Api, Caller, problem_of, spec
from tests.support.api_document import Operation, operations
from tests.support.businesses import OUTPUT, Businesses

NAMING = [operation for operation in operations() if operation.parameters]
OWN_NAMESPACE = {"upload_archive"}  # a hash names the uploader's own archive
LISTING = [operation for operation in operations() if operation.method == "GET" and operation.is_gated and not operation.parameters]
OF_NODES = [operation for operation in NAMING if operation.permissions == {"agents:speak"}]

# Questions that name globex or what it has, and whether they are about a tenant that acme cannot see.
QUESTIONS = {
    "/v1/jobs?tenant=globex": 404,
    "/v1/users?tenant=globex": 404,
    "/v1/quotas?tenant=globex": 404,
    "/v1/usage?tenant=globex": 404,
    "/v1/reservations?tenant=globex": 404,
    "/v1/jobs?project=moonshot": 200,
    "/v1/users?name=hank": 200,
    "/v1/usage?by=tenant,project,user,flavor,job": 200,
    "/v1/events?cursor=MA": 200,  # from the first event on
}


@pytest.fixture
async def two(api: Api) -> Businesses:
    """acme and globex."""
    return await Businesses.founded(api)


def test_every_name_in_a_path_is_known() -> None:
    names = {name for operation in NAMING for name in operation.parameters}

    assert names == {
        "job_id",
        "key_id",
        "user_id",
        "tenant",
        "tenant_id",
        "project",
        "sha256",
        "node",
        "cohort",
        "reservation",
        "maintenance",
    }


async def ask(caller: Caller, operation: Operation, path: str) -> tuple[int, Any]:
    """Call an operation; return its status and code."""
    answer = await caller.send(operation.method, path, json=operation.body)
    return answer.status_code, None if operation.method == "HEAD" else answer.json().get("code")


@pytest.mark.parametrize("role", ["admin", "member", "viewer"])
async def test_somebody_elses_object_is_missing_on_every_route(two: Businesses, role: str) -> None:
    asked = [operation for operation in NAMING if operation.name not in OWN_NAMESPACE]
    before = await two.api.rows()

    theirs = {item.name: await ask(two.acme[role], item, item.at(**two.theirs)) for item in asked}
    absent = {item.name: await ask(two.acme[role], item, item.at()) for item in asked}

    may = {item.name: not item.permissions.isdisjoint(ROLE_PERMISSIONS[role]) for item in asked}
    assert {name: status for name, (status, _) in theirs.items()} == {name: 404 if may[name] else 403 for name in may}
    assert theirs == absent
    assert await two.api.rows() == before


async def test_no_listing_and_no_question_shows_anything_of_somebody_elses(two: Businesses) -> None:
    paths = {operation.path: 200 for operation in LISTING} | QUESTIONS

    answers = {path: await two.acme["admin"].get(path) for path in paths}

    forbidden = dict.fromkeys(("/v1/nodes", "/v1/quota-tree", "/v1/cohorts", "/v1/maintenance", "/v1/policy"), 403)
    assert {path: answer.status_code for path, answer in answers.items()} == paths | forbidden
    secrets = two.secrets - {"globex"}  # a refusal repeats the name that was asked for
    assert {path: secret for path, answer in answers.items() for secret in secrets if secret in answer.text} == {}
    assert not [path for path in paths if "globex" not in path and "globex" in answers[path].text]


async def test_body_that_names_somebody_elses_object_is_refused(two: Businesses) -> None:
    ada = two.acme["admin"]
    before = await two.api.rows()

    answers = {
        "job in a project": await ada.post("/v1/jobs", spec(project="moonshot")),
        "job in a batch": await ada.post("/v1/jobs/batch", {"jobs": [spec(), spec(project="moonshot")]}),
        "archive": await ada.post("/v1/jobs", spec(archive_sha256=two.theirs["sha256"])),
        "key": await ada.post("/v1/keys", {"user_id": two.theirs["user_id"]}),
        "user": await ada.post("/v1/users", {"name": "eve", "role": "member", "tenant": "globex"}),
        "estimate": await ada.post("/v1/estimates", spec(project="moonshot")),
    }

    assert {name: problem_of(answer)[:3] for name, answer in answers.items()} == {
        "job in a project": (422, "unknown_project", "project"),
        "job in a batch": (422, "unknown_project", "jobs[1].project"),
        "archive": (422, "archive_not_uploaded", "archive_sha256"),
        "key": (404, "user_not_found", "user_id"),
        "user": (404, "tenant_not_found", "tenant"),
        "estimate": (422, "unknown_project", "project"),
    }
    assert await two.api.rows() == before


async def test_same_archive_of_two_tenants_is_two(two: Businesses) -> None:
    path = f"/v1/archives/{two.theirs['sha256']}"

    seen_before = (await two.acme["member"].send("HEAD", path)).status_code
    uploaded = (await two.acme["member"].send("PUT", path, content=two.archive)).status_code

    assert (seen_before, uploaded) == (404, 201)
    assert (await two.api.rows())["blob"] == 2


async def test_agent_speaks_for_its_own_node_only(two: Businesses) -> None:
    before = await two.api.rows()

    answers = {operation.name: await ask(two.agents["node-2"], operation, operation.at(**two.theirs)) for operation in OF_NODES}

    assert answers == dict.fromkeys(answers, (404, "node_not_found"))
    assert len(answers) == 4
    assert await two.api.rows() == before


async def test_agent_cannot_report_on_a_lease_of_another_node(two: Businesses) -> None:
    other, lease_id = two.agents["node-2"], two.theirs["lease_id"]

    await other.see("exited", lease=lease_id, data={"exit_code": 0})
    await other.write(lease_id, len(OUTPUT), "forged\n")
    await two.api.schedule()

    job = await two.globex.fetch(f"/v1/jobs/{two.theirs['job_id']}")
    assert job["state"] == "running"
    assert (await two.globex.get(f"/v1/jobs/{job['id']}/logs")).text == OUTPUT


async def test_agent_reads_no_archive_that_its_leases_do_not_use(two: Businesses) -> None:
    path = "/v1/nodes/{node}/archives/{tenant_id}/{sha256}"

    own = await two.agents["node-1"].get(path.format(**two.theirs))
    other = await two.agents["node-2"].get(path.format(**{**two.theirs, "node": "node-2"}))

    assert own.content == two.archive
    assert problem_of(other)[:2] == (404, "archive_not_found")


async def test_operator_can_narrow_to_one_tenant(two: Businesses) -> None:
    jobs = (await two.api.operator.fetch("/v1/jobs?tenant=globex"))["items"]
    quotas = (await two.api.operator.fetch("/v1/quotas?tenant=globex"))["items"]

    assert [job["id"] for job in jobs] == [two.theirs["job_id"]]
    assert [(quota["tenant"], quota["held"]) for quota in quotas] == [("globex", 1_000)]
