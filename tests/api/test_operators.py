"""What operators and finance do: tenants, projects, users, nodes, quotas and prices, as rows that others then see."""

from __future__ import annotations

import pytest

from tests.support.api import Api, problem_of, spec


async def test_tenant_begins_with_a_project_and_changes_by_field(api: Api) -> None:
    made = await api.operator.create("/v1/tenants", {"name": "acme", "parent": "fleet", "weight_milli": 2_000})

    changed = await api.operator.change("PATCH", "/v1/tenants/acme", {"weight_milli": 0})

    projects = (await api.operator.fetch("/v1/tenants/acme/projects"))["items"]
    assert [project["name"] for project in projects] == ["default"]
    assert changed == made | {"weight_milli": 0}
    assert await api.operator.fetch("/v1/tenants/acme") == changed


async def test_users_are_found_by_name_and_tenant(api: Api) -> None:
    for tenant in ("acme", "globex"):
        await api.tenant(tenant)
        await api.user("member", tenant=tenant, name="ada")

    async def listed(query: str) -> list[tuple[str, str | None]]:
        return [(user["name"], user["tenant"]) for user in (await api.operator.fetch(f"/v1/users?{query}"))["items"]]

    assert await listed("name=ada") == [("ada", "acme"), ("ada", "globex")]
    assert await listed("name=ada&tenant=globex") == [("ada", "globex")]
    assert await listed("tenant=acme") == [("ada", "acme")]


async def test_quota_of_a_tenant_and_of_its_project_with_what_is_held_and_queued(api: Api) -> None:
    await api.node(gpus=4)
    await api.tenant("acme", gpus=2)
    await api.operator.create("/v1/tenants/acme/projects", {"name": "vision"})
    await api.operator.change("PUT", "/v1/quotas/acme/projects/vision", {"resource": "h200", "nominal": 1_000})
    ada = await api.user("member")
    await ada.create("/v1/jobs/batch", {"jobs": [spec(gpus=2), spec(gpus=2)]})
    await api.schedule()

    quotas = (await ada.fetch("/v1/quotas"))["items"]

    seen = [(quota["project"], quota["nominal"], quota["held"], quota["queued"]) for quota in quotas]
    assert seen == [(None, 2_000, 2_000, 2_000), ("vision", 1_000, 0, 0)]


async def test_quota_cut_below_what_is_held_warns_and_stops_nothing(api: Api) -> None:
    await api.node(gpus=4)
    await api.tenant("acme", gpus=4)
    ada = await api.user("member")
    job = await ada.submit(gpus=4)
    await api.schedule()

    cut = await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 1_000})
    raised = await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 9_000})

    assert cut["held"] == 4_000
    assert any("4000 is held now" in warning for warning in cut["warnings"])
    assert any("add up to 9000" in warning for warning in raised["warnings"])
    assert (await ada.fetch(f"/v1/jobs/{job['id']}"))["state"] == "starting"


async def test_dated_quota_is_in_force_in_its_window_only(api: Api) -> None:
    await api.tenant("acme", gpus=1)

    await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 8_000, "valid_from": "2099-01-01T00:00:00Z"})

    (quota,) = (await api.operator.fetch("/v1/quotas?tenant=acme"))["items"]
    assert (quota["nominal"], quota["valid_until"]) == (1_000, None)


async def test_cordoned_node_takes_nothing_new_and_draining_includes_it(api: Api) -> None:
    await api.node(gpus=4)
    await api.tenant()
    ada = await api.user("member")

    states = []
    for change in ({"is_cordoned": True}, {"is_draining": True}, {"is_draining": False}):
        states.append((await api.operator.change("PATCH", "/v1/nodes/node-1", change))["state"])
    await api.operator.change("PATCH", "/v1/nodes/node-1", {"is_cordoned": True})
    job = await ada.submit()
    await api.schedule()

    assert states == ["cordoned", "draining", "ready"]
    assert (await ada.fetch(f"/v1/jobs/{job['id']}"))["state"] == "queued"


async def test_node_shows_who_holds_its_devices_to_operators_only(api: Api) -> None:
    await api.node(gpus=2)
    await api.tenant()
    ada = await api.user("member")
    await ada.submit(gpus=1)
    await api.schedule()

    node = await api.operator.fetch("/v1/nodes/node-1")
    refused = await ada.get("/v1/nodes/node-1")

    held = [device["lease_id"] is not None for device in node["devices"]]
    assert (held, node["milli_gpu_leased"]) == ([True, False], 1_000)
    assert problem_of(refused)[:2] == (403, "permission_missing")


async def test_finance_sets_prices_that_tenants_see(api: Api) -> None:
    await api.tenant()
    finance = await api.user("finance", tenant=None)
    ada = await api.user("viewer")

    price = await finance.create("/v1/prices", {"flavor": "h200", "currency": "USD", "units_per_hour": 5_000_000})

    flavors = {flavor["name"]: flavor["price_units_per_hour"] for flavor in (await ada.fetch("/v1/flavors"))["items"]}
    assert flavors["h200"] == 5_000_000
    assert price in (await ada.fetch("/v1/prices"))["items"]


@pytest.mark.parametrize("role", ["finance", "operator"])
async def test_finance_sees_jobs_of_all_but_not_their_output(api: Api, role: str) -> None:
    await api.tenant()
    ada = await api.user("member")
    job = await ada.submit()
    caller = await api.user(role, tenant=None, name="somebody")

    seen = await caller.get(f"/v1/jobs/{job['id']}")
    output = await caller.get(f"/v1/jobs/{job['id']}/logs")

    assert (seen.status_code, output.status_code) == (200, 200 if role == "operator" else 403)


async def test_me_says_who_the_key_speaks_for(api: Api) -> None:
    await api.tenant()
    ada = await api.user("member", name="ada", scopes=["jobs:*"])

    me = await ada.fetch("/v1/me")

    assert {key: me[key] for key in me if key not in ("user_id", "service_version")} == {
        "user": "ada", "role": "member", "tenant": "acme", "scopes": ["jobs:*"], "is_embedded": False,
    }  # fmt: skip
