"""What operators and finance may not send. Each refusal names the field and the limit, and changes no row."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Api, problem_of
from tests.support.api_document import operations

NAME = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
AMOUNT = 10**15
BEFORE_ALL, AFTER_ALL = "1970-01-01T00:00:00Z", "9999-01-01T00:00:00Z"
QUOTA = {"resource": "h200", "nominal": 1_000}
PRICE = {"flavor": "h200", "currency": "USD", "units_per_hour": 1}
LATER = "2030-01-01T00:00:00Z"
MODELS = ["a100", "h100", "h200", "l40s"]

# name -> (method, path, body, status, code, field, limit)
BAD: dict[str, tuple[str, str, Any, int, str, str, Any]] = {
    "a tenant without a name": ("POST", "/v1/tenants", {}, 422, "invalid_request", "name", None),
    "a tenant's name in capitals": ("POST", "/v1/tenants", {"name": "Acme"}, 422, "invalid_request", "name", NAME),
    "a tenant's name with a line break": ("POST", "/v1/tenants", {"name": "acme\n"}, 422, "invalid_request", "name", NAME),
    "a tenant's name of 64 letters": ("POST", "/v1/tenants", {"name": "a" * 64}, 422, "invalid_request", "name", 63),
    "a tenant that is there": ("POST", "/v1/tenants", {"name": "acme"}, 409, "tenant_exists", "name", None),
    "a tenant in an unknown cohort": ("POST", "/v1/tenants", {"name": "new", "parent": "no"}, 422, "unknown_cohort", "parent", None),
    "a negative weight": ("POST", "/v1/tenants", {"name": "new", "weight_milli": -1}, 422, "invalid_request", "weight_milli", 0),
    "a huge weight": ("POST", "/v1/tenants", {"name": "new", "weight_milli": 10**20}, 422, "invalid_request", "weight_milli", 10**9),
    "an unknown field of a tenant": ("POST", "/v1/tenants", {"name": "new", "quota": 1}, 422, "invalid_request", "quota", None),
    "a list for a tenant": ("POST", "/v1/tenants", [], 422, "invalid_request", "body", None),
    "a tenant that is not there": ("PATCH", "/v1/tenants/none", {"weight_milli": 1}, 404, "tenant_not_found", "tenant", None),
    "a project that is there": ("POST", "/v1/tenants/acme/projects", {"name": "default"}, 409, "project_exists", "name", None),
    "a project of no tenant": ("POST", "/v1/tenants/none/projects", {"name": "x"}, 404, "tenant_not_found", "tenant", None),
    "a user that is there": ("POST", "/v1/users", {"name": "operator", "role": "operator"}, 409, "user_exists", "name", None),
    "a member of no tenant": ("POST", "/v1/users", {"name": "x", "role": "member"}, 422, "role_does_not_fit", "tenant", None),
    "an operator of a tenant": (
        "POST", "/v1/users", {"name": "x", "role": "operator", "tenant": "acme"}, 422, "role_does_not_fit", "tenant", None,
    ),
    "a key for an unknown node": ("POST", "/v1/keys", {"node": "none"}, 422, "unknown_node", "node", None),
    "a key to revoke that is not there": ("DELETE", "/v1/keys/none", None, 404, "key_not_found", "key", None),
    "a node that is there": ("POST", "/v1/nodes", {"name": "node-1"}, 409, "node_exists", "name", None),
    "a node that is not there": ("PATCH", "/v1/nodes/none", {"is_cordoned": True}, 404, "node_not_found", "node", None),
    "a switch that is no switch": ("PATCH", "/v1/nodes/node-1", {"is_cordoned": "maybe"}, 422, "invalid_request", "is_cordoned", None),
    "a quota of no tenant": ("PUT", "/v1/quotas/none", QUOTA, 404, "tenant_not_found", "tenant", None),
    "a quota of no project": ("PUT", "/v1/quotas/acme/projects/none", QUOTA, 404, "project_not_found", "project", None),
    "a negative quota": ("PUT", "/v1/quotas/acme", QUOTA | {"nominal": -1}, 422, "invalid_request", "nominal", 0),
    "a huge quota": ("PUT", "/v1/quotas/acme", QUOTA | {"nominal": 10**20}, 422, "invalid_request", "nominal", AMOUNT),
    "a quota of half a milli-GPU": ("PUT", "/v1/quotas/acme", QUOTA | {"nominal": 0.5}, 422, "invalid_request", "nominal", None),
    "a quota of an unknown resource": (
        "PUT", "/v1/quotas/acme", QUOTA | {"resource": "h900"}, 422, "unknown_resource", "resource", [*MODELS, "cpu", "memory"],
    ),
    "a negative borrowing limit": (
        "PUT", "/v1/quotas/acme", QUOTA | {"borrowing_limit": -1}, 422, "invalid_request", "borrowing_limit", 0,
    ),
    "a borrowing limit without a cohort": (
        "PUT", "/v1/quotas/acme", QUOTA | {"borrowing_limit": 1}, 422, "nobody_to_borrow_from", "borrowing_limit", None,
    ),
    "a quota that ends before it begins": (
        "PUT", "/v1/quotas/acme", QUOTA | {"valid_from": LATER, "valid_until": LATER}, 422, "empty_window", "valid_until",
        "2030-01-01T00:00:00.000Z",
    ),
    "a quota from before all time": (
        "PUT", "/v1/quotas/acme", QUOTA | {"valid_from": "0001-01-01T00:00:00+14:00"}, 422, "invalid_request", "valid_from", BEFORE_ALL,
    ),
    "a quota until after all time": (
        "PUT", "/v1/quotas/acme", QUOTA | {"valid_until": "9999-12-31T23:59:59-12:00"}, 422, "invalid_request", "valid_until", AFTER_ALL,
    ),
    "a quota from a time without a zone": (
        "PUT", "/v1/quotas/acme", QUOTA | {"valid_from": "2030-01-01T00:00:00"}, 422, "invalid_request", "valid_from", None,
    ),
    "a price of an unknown flavor": ("POST", "/v1/prices", PRICE | {"flavor": "h900"}, 422, "unknown_flavor", "flavor", MODELS),
    "a price in an unknown currency": (
        "POST", "/v1/prices", PRICE | {"currency": "ABC"}, 422, "unknown_currency", "currency", ["USD", "VND"],
    ),
    "a price in what is no currency": ("POST", "/v1/prices", PRICE | {"currency": "usd"}, 422, "invalid_request", "currency", "^[A-Z]{3}$"),
    "a negative price": ("POST", "/v1/prices", PRICE | {"units_per_hour": -1}, 422, "invalid_request", "units_per_hour", 0),
    "a price with a fraction": ("POST", "/v1/prices", PRICE | {"units_per_hour": 0.5}, 422, "invalid_request", "units_per_hour", None),
    "a price that begins twice": ("POST", "/v1/prices", PRICE | {"valid_from": LATER}, 409, "price_exists", "valid_from", None),
}  # fmt: skip


@pytest.fixture
async def filled(api: Api) -> Api:
    """A service with a tenant, a node and a price to come."""
    await api.tenant("acme", gpus=2)
    await api.node("node-1")
    await api.operator.create("/v1/prices", PRICE | {"valid_from": LATER})
    return api


async def test_bad_request_is_refused_with_field_and_limit_and_changes_nothing(filled: Api) -> None:
    before = await filled.rows()

    answers = {name: await filled.operator.send(method, path, json=body) for name, (method, path, body, *_) in BAD.items()}

    assert {name: problem_of(answer) for name, answer in answers.items()} == {name: tuple(case[3:]) for name, case in BAD.items()}
    assert await filled.rows() == before


async def test_price_cannot_begin_in_the_past(filled: Api) -> None:
    before = await filled.rows()

    answer = await filled.operator.post("/v1/prices", PRICE | {"valid_from": "2020-01-01T00:00:00Z"})

    status, code, field, limit = problem_of(answer)
    assert (status, code, field) == (422, "price_in_the_past", "valid_from")
    assert limit.endswith("Z")
    assert await filled.rows() == before


async def test_change_of_nothing_changes_nothing(filled: Api) -> None:
    tenant = await filled.operator.fetch("/v1/tenants/acme")
    node = await filled.operator.fetch("/v1/nodes/node-1")

    assert await filled.operator.change("PATCH", "/v1/tenants/acme", {}) == tenant
    assert await filled.operator.change("PATCH", "/v1/nodes/node-1", {}) == node


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", ("empty_window", "from"), id="a window that ends first"),
        pytest.param("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", ("empty_window", "from"), id="an empty window"),
        pytest.param("from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", ("window_too_long", "from"), id="six years"),
        pytest.param("from=yesterday", ("invalid_request", "from"), id="a word for a time"),
        pytest.param("to=2026-01-01T00:00:00", ("invalid_request", "to"), id="a time without a zone"),
        pytest.param("to=0001-01-01T00:00:00%2B14:00", ("invalid_request", "to"), id="a time before all"),
        pytest.param("by=moon", ("invalid_groups", "by"), id="an unknown group"),
        pytest.param("by=job,job", ("invalid_groups", "by"), id="a group twice"),
        pytest.param("by=" + "x," * 100, ("invalid_request", "by"), id="too long a list of groups"),
        pytest.param("tenant=none", ("tenant_not_found", "tenant"), id="an unknown tenant"),
    ],
)
async def test_report_is_refused(api_on_sqlite: Api, query: str, expected: tuple[str, str]) -> None:
    answer = await api_on_sqlite.operator.get(f"/v1/usage?{query}")

    assert problem_of(answer)[1:3] == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param("state=flying", "state[0]", id="an unknown state"),
        pytest.param("project=" + "x" * 64, "project", id="a project's name that is too long"),
        pytest.param("tenant=" + "x" * 64, "tenant", id="a tenant's name that is too long"),
    ],
)
async def test_listing_of_jobs_is_refused(api_on_sqlite: Api, query: str, field: str) -> None:
    answer = await api_on_sqlite.operator.get(f"/v1/jobs?{query}")

    assert problem_of(answer)[:3] == (422, "invalid_request", field)


async def test_parameter_that_a_route_does_not_take_is_refused_by_every_route(api_on_sqlite: Api) -> None:
    agent = await api_on_sqlite.node()
    await api_on_sqlite.tenant()
    ada = await api_on_sqlite.user("member")
    of_roles = {"agents:speak": agent, "jobs:write": ada, "archives:write": ada, "estimates:write": ada}
    asked = [operation for operation in operations() if operation.is_gated]

    answers = {}
    for operation in asked:
        caller = next((of_roles[name] for name in operation.permissions if name in of_roles), api_on_sqlite.operator)
        answers[operation.name] = await caller.send(operation.method, operation.at(), params={"tennant": "acme"}, json=operation.body)

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 422)
    fields = {name: problem_of(answer)[1:3] for name, answer in answers.items() if answer.content}
    assert fields == dict.fromkeys(fields, ("invalid_request", "tennant"))
    assert "state, tenant" in answers["list_jobs"].json()["detail"]
