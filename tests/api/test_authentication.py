from __future__ import annotations

import pytest

from api import clock
from api.auth import new_secret
from store.identity import CreateKey
from tests.api.conftest import OpenApi
from tests.support.api import Api, Caller, problem_of
from tests.support.api_document import Operation, operations

REFUSED = (401, "unauthenticated", None, None)
GATED = [operation for operation in operations() if operation.is_gated]
OPEN = {"healthz", "readyz", "metrics"}


async def key_that_ended(api: Api, *, ended_ms_ago: int) -> Caller:
    """Give the operator a key that expired a while ago."""
    me = await api.operator.fetch("/v1/me")
    secret, now_ms = new_secret(), clock.now_ms()
    command = CreateKey(secret.key_id, me["user_id"], "old", secret.sha256, ("*",), None, now_ms - ended_ms_ago, now_ms - ended_ms_ago - 1)
    await api.store.run(command)
    return api.caller(secret.bearer)


def test_only_health_and_metrics_need_no_key() -> None:
    assert {operation.name for operation in operations() if not operation.is_gated} == OPEN


@pytest.mark.parametrize("operation", GATED, ids=lambda operation: operation.name)
async def test_stranger_is_turned_away_before_the_body_is_read(api_on_sqlite: Api, operation: Operation) -> None:
    answer = await api_on_sqlite.caller().send(operation.method, operation.at(), content=b"{ not json", headers={"Content-Type": "text/x"})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="an empty header"),
        pytest.param("Bearer", id="a scheme alone"),
        pytest.param("Basic b3A6cHc=", id="another scheme"),
        pytest.param("Bearer key_00000000000000000000.wrong", id="a key that is not there"),
        pytest.param("Bearer key_00000000000000000000", id="a key without its secret"),
        pytest.param("Bearer key_0.secret", id="what is no identifier"),
        pytest.param("Bearer " + "k" * 300 + ".secret", id="a key that is too long"),
        pytest.param("Bearer key_0000000000000000000\x00.secret", id="a null character"),
    ],
)
async def test_what_is_no_key_gets_the_one_answer(api_on_sqlite: Api, header: str) -> None:
    answer = await api_on_sqlite.caller().get("/v1/me", headers={"Authorization": header})

    assert problem_of(answer) == REFUSED


async def test_wrong_secret_of_a_real_key_gets_the_same_answer_as_no_key(api: Api) -> None:
    key_id = str(api.operator.bearer).partition(".")[0]

    wrong = await api.caller(f"{key_id}.{'x' * 43}").get("/v1/me")
    absent = await api.caller("key_00000000000000000000.x").get("/v1/me")

    known = {**wrong.json(), "request_id": None}
    assert known == {**absent.json(), "request_id": None}
    assert problem_of(wrong) == REFUSED


async def test_scheme_is_read_in_any_case(api_on_sqlite: Api) -> None:
    answer = await api_on_sqlite.caller().get("/v1/me", headers={"Authorization": f"bEARER {api_on_sqlite.operator.bearer}"})

    assert answer.status_code == 200


async def test_expired_key_is_told_so(api: Api) -> None:
    old = await key_that_ended(api, ended_ms_ago=1_000)

    answer = await old.get("/v1/me")

    assert problem_of(answer) == (401, "key_expired", None, None)


async def test_expired_key_with_a_wrong_secret_is_told_nothing(api: Api) -> None:
    old = await key_that_ended(api, ended_ms_ago=1_000)

    answer = await api.caller(str(old.bearer) + "x").get("/v1/me")

    assert problem_of(answer) == REFUSED


async def test_revoked_key_stops_at_once_however_long_keys_are_remembered(open_api: OpenApi) -> None:
    api = await open_api(key_cache_seconds=3_600)
    await api.tenant()
    ada = await api.user()
    assert (await ada.get("/v1/me")).status_code == 200

    revoked = await api.operator.change("DELETE", f"/v1/keys/{str(ada.bearer).partition('.')[0]}")
    again = await api.operator.change("DELETE", f"/v1/keys/{revoked['id']}")

    assert problem_of(await ada.get("/v1/me")) == REFUSED
    assert revoked == again
    assert revoked["revoked_at"] is not None


async def test_other_replica_sees_a_revocation_after_the_named_seconds(open_api: OpenApi) -> None:
    here, remembering, forgetting = [await open_api(key_cache_seconds=seconds) for seconds in (5, 3_600, 0)]
    await here.tenant()
    ada = await here.user()
    for replica in (remembering, forgetting):
        assert (await replica.caller(ada.bearer).get("/v1/me")).status_code == 200

    await here.operator.change("DELETE", f"/v1/keys/{str(ada.bearer).partition('.')[0]}")

    statuses = [(await replica.caller(ada.bearer).get("/v1/me")).status_code for replica in (here, remembering, forgetting)]
    assert statuses == [401, 200, 401]


async def test_suspended_tenant_is_locked_out_at_once_and_let_in_again(open_api: OpenApi) -> None:
    api = await open_api(key_cache_seconds=3_600)
    await api.tenant()
    ada = await api.user()
    assert (await ada.get("/v1/me")).status_code == 200

    await api.operator.change("PATCH", "/v1/tenants/acme", {"is_suspended": True})
    locked_out = await ada.get("/v1/me")
    await api.operator.change("PATCH", "/v1/tenants/acme", {"is_suspended": False})

    assert problem_of(locked_out) == (403, "tenant_suspended", None, None)
    assert (await ada.get("/v1/me")).status_code == 200


async def test_disabled_user_is_locked_out_with_all_its_keys(open_api: OpenApi) -> None:
    api = await open_api(key_cache_seconds=3_600)
    await api.tenant()
    ada = await api.user()
    second = api.caller((await ada.create("/v1/keys", {"name": "second"}))["secret"])
    user_id = (await second.fetch("/v1/me"))["user_id"]

    disabled = await api.operator.change("PATCH", f"/v1/users/{user_id}", {"is_disabled": True})

    assert disabled["is_disabled"]
    assert [problem_of(await caller.get("/v1/me")) for caller in (ada, second)] == [REFUSED, REFUSED]
    await api.operator.change("PATCH", f"/v1/users/{user_id}", {"is_disabled": False})
    assert (await ada.get("/v1/me")).status_code == 200
