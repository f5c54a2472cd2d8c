from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api import clock
from tests.support.api import Api, Caller, problem_of

SOON = datetime.fromtimestamp(clock.now_ms() / 1_000, UTC) + timedelta(days=1)
LATER = SOON + timedelta(days=1)


async def admin(api: Api, **key: Any) -> Caller:
    """Return the admin of acme."""
    await api.tenant()
    return await api.user("admin", **key)


async def test_secret_is_in_the_answer_that_made_it_and_nowhere_else(api: Api) -> None:
    ada = await admin(api)

    made = await ada.create("/v1/keys", {"name": "laptop", "scopes": ["jobs:*"]})
    listed = (await ada.fetch("/v1/keys"))["items"]

    assert made["secret"].startswith(made["id"] + ".")
    assert {key: made[key] for key in listed[-1]} == listed[-1]
    assert "secret" not in listed[-1]
    assert (await api.caller(made["secret"]).fetch("/v1/me"))["scopes"] == ["jobs:*"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({"scopes": ["jobs:fly"]}, (422, "unknown_scope", "scopes[0]"), id="a scope that grants nothing"),
        pytest.param({"scopes": ["jobs:read", "nodes:write"]}, (403, "scope_not_grantable", "scopes[1]"), id="more than one has"),
        pytest.param({"scopes": []}, (422, "invalid_request", "scopes"), id="no scope"),
        pytest.param({"scopes": ["*"]}, (403, "scope_not_grantable", "scopes[0]"), id="all scopes"),
        pytest.param({"expires_at": "2020-01-01T00:00:00Z"}, (422, "expires_in_past", "expires_at"), id="an expiry in the past"),
        pytest.param({"expires_at": "2020-01-01T00:00:00"}, (422, "invalid_request", "expires_at"), id="a time without its zone"),
        pytest.param({"expires_at": "0001-01-01T00:00:00+14:00"}, (422, "invalid_request", "expires_at"), id="a time before all"),
        pytest.param({"expires_at": "9999-12-31T23:59:59-12:00"}, (422, "invalid_request", "expires_at"), id="a time after all"),
        pytest.param({"node": "node-1"}, (403, "role_not_grantable", "node"), id="a node's key"),
        pytest.param({"user_id": "usr_00000000000000000000"}, (404, "user_not_found", "user_id"), id="a user that is not there"),
        pytest.param({"name": "two\nlines"}, (422, "invalid_request", "name"), id="a name of two lines"),
        pytest.param({"admin": True}, (422, "invalid_request", "admin"), id="an unknown field"),
    ],
)
async def test_key_is_refused(api_on_sqlite: Api, body: dict[str, object], expected: tuple[int, str, str]) -> None:
    ada = await admin(api_on_sqlite, scopes=["jobs:*", "keys:*"])
    before = await api_on_sqlite.rows()

    answer = await ada.post("/v1/keys", {"scopes": ["jobs:read"], **body})

    assert problem_of(answer)[:3] == expected
    assert await api_on_sqlite.rows() == before


@pytest.mark.parametrize("expires_at", [None, LATER.isoformat()], ids=["never", "later"])
async def test_key_that_expires_makes_none_that_outlives_it(api: Api, expires_at: str | None) -> None:
    ada = await admin(api, expires_at=SOON.isoformat())

    outliving = await ada.post("/v1/keys", {"expires_at": expires_at})
    equal = await ada.post("/v1/keys", {"expires_at": SOON.isoformat()})

    assert problem_of(outliving)[:3] == (403, "expiry_not_grantable", "expires_at")
    assert equal.status_code == 201


async def test_member_makes_and_revokes_own_keys_only(api: Api) -> None:
    ada = await admin(api)
    bob = await api.user("member")
    adas = (await ada.fetch("/v1/me"))["user_id"], str(ada.bearer).partition(".")[0]

    for_ada = await bob.post("/v1/keys", {"user_id": adas[0]})
    of_ada = await bob.send("DELETE", f"/v1/keys/{adas[1]}")
    own = await bob.create("/v1/keys", {})

    assert problem_of(for_ada)[:2] == (403, "permission_missing")
    assert problem_of(of_ada)[:2] == (404, "key_not_found")
    assert [key["id"] for key in (await bob.fetch("/v1/keys"))["items"]] == [str(bob.bearer).partition(".")[0], own["id"]]


async def test_admin_manages_the_keys_of_the_own_tenant(api: Api) -> None:
    ada = await admin(api)
    bob = await api.user("member")
    bobs_id = (await bob.fetch("/v1/me"))["user_id"]

    made = await ada.create("/v1/keys", {"user_id": bobs_id})
    await ada.change("DELETE", f"/v1/keys/{str(bob.bearer).partition('.')[0]}")

    assert (await api.caller(made["secret"]).fetch("/v1/me"))["user"] == "member"
    assert (await bob.get("/v1/me")).status_code == 401
    assert len((await ada.fetch("/v1/keys"))["items"]) == 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({"name": "op", "role": "operator"}, (403, "role_not_grantable", "role"), id="an operator"),
        pytest.param({"name": "fin", "role": "finance"}, (403, "role_not_grantable", "role"), id="somebody in finance"),
        pytest.param({"name": "n", "role": "node"}, (403, "role_not_grantable", "role"), id="a node"),
        pytest.param({"name": "eve", "role": "member", "tenant": "globex"}, (404, "tenant_not_found", "tenant"), id="another tenant's"),
        pytest.param({"name": "admin", "role": "viewer"}, (409, "user_exists", "name"), id="a taken name"),
        pytest.param({"name": "eve", "role": "king"}, (422, "invalid_request", "role"), id="an unknown role"),
    ],
)
async def test_admin_cannot_make(api_on_sqlite: Api, body: dict[str, object], expected: tuple[int, str, str]) -> None:
    ada = await admin(api_on_sqlite)
    await api_on_sqlite.tenant("globex")
    before = await api_on_sqlite.rows()

    answer = await ada.post("/v1/users", body)

    assert problem_of(answer)[:3] == expected
    assert await api_on_sqlite.rows() == before


async def test_nobody_disables_themselves(api: Api) -> None:
    ada = await admin(api)
    own_id = (await ada.fetch("/v1/me"))["user_id"]

    answer = await ada.send("PATCH", f"/v1/users/{own_id}", json={"is_disabled": True})

    assert problem_of(answer)[:3] == (409, "cannot_disable_oneself", "is_disabled")
    assert (await ada.get("/v1/me")).status_code == 200
