from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api import clock, upkeep
from api.replays import KEY_LENGTH_MAXIMUM
from api.settings import Retention
from store.idempotency import RETENTION_MS
from tests.api.conftest import OpenApi
from tests.support.api import Api, Caller, problem_of, spec
from tests.support.api_document import operations

CREATING = {item.name: item for item in operations() if item.method == "POST" and "201" in item.described["responses"]}
REPLAYED = "idempotency-replayed"


@pytest.fixture
async def ada(api: Api) -> Caller:
    """A member of acme."""
    await api.tenant()
    return await api.user("member")


async def test_same_key_and_body_get_the_first_answer_again(api: Api, ada: Caller) -> None:
    first = await ada.post("/v1/jobs", spec(), key="once")
    before = await api.rows()

    again = [await ada.post("/v1/jobs", spec(), key="once") for _ in range(2)]

    assert [answer.content for answer in again] == [first.content] * 2
    assert [answer.status_code for answer in again] == [201, 201]
    assert (first.headers.get(REPLAYED), again[0].headers.get(REPLAYED)) == (None, "true")
    assert await api.rows() == before


async def test_every_creating_route_replays(api: Api) -> None:
    await api.tenant()
    await api.node("node-1", gpus=1)
    window = {"start": "2090-01-01T00:00:00Z", "end": "2090-01-01T01:00:00Z"}
    bodies: dict[str, tuple[Caller, dict[str, Any]]] = {
        "create_project": (api.operator, {"name": "vision"}),
        "create_tenant": (api.operator, {"name": "globex"}),
        "create_user": (api.operator, {"name": "bob", "role": "viewer", "tenant": "acme"}),
        "create_node": (api.operator, {"name": "node-9"}),
        "create_cohort": (api.operator, {"name": "alliance"}),
        "create_reservation": (api.operator, {"name": "course", "tenant": "acme", "flavor": "h200", "gpus": 1} | window),
        "create_maintenance": (api.operator, {"name": "firmware", "nodes": ["node-1"]} | window),
        "create_price": (api.operator, {"flavor": "h200", "currency": "USD", "units_per_hour": 1, "valid_from": "2030-01-01T00:00:00Z"}),
        "create_key": (api.operator, {"name": "second"}),
        "submit_job": (await api.user("member"), spec()),
        "submit_batch": (await api.user("admin"), {"jobs": [spec(), spec()]}),
    }
    first = {name: await caller.post(CREATING[name].at(tenant="acme"), body, key=name) for name, (caller, body) in bodies.items()}
    before = await api.rows()

    again = {name: await caller.post(CREATING[name].at(tenant="acme"), body, key=name) for name, (caller, body) in bodies.items()}

    assert set(bodies) == set(CREATING)
    assert {name: answer.status_code for name, answer in first.items()} == dict.fromkeys(bodies, 201)
    assert [name for name in bodies if again[name].content != first[name].content] == ["create_key"]
    assert problem_of(again["create_key"])[:2] == (409, "secret_shown_once")
    assert again["create_key"].json()["data"] == {"id": first["create_key"].json()["id"]}
    assert await api.rows() == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/jobs", spec(name="other"), id="another body"),
        pytest.param("/v1/jobs/batch", {"jobs": [spec()]}, id="another route"),
    ],
)
async def test_same_key_with_something_else_is_refused(api: Api, ada: Caller, path: str, body: Any) -> None:
    await ada.create("/v1/jobs", spec(), key="once")
    before = await api.rows()

    answer = await ada.post(path, body, key="once")

    assert problem_of(answer)[:3] == (409, "idempotency_key_reused", "Idempotency-Key")
    assert await api.rows() == before


async def test_key_of_another_user_is_another_key(api: Api, ada: Caller) -> None:
    bob = await api.user("admin", name="bob")

    jobs = [await caller.create("/v1/jobs", spec(), key="once") for caller in (ada, bob)]

    assert [job["user"] for job in jobs] == ["member", "bob"]
    assert jobs[0]["id"] != jobs[1]["id"]


async def test_racing_requests_with_one_key_create_once(api: Api, ada: Caller) -> None:
    before = await api.rows()

    answers = await asyncio.gather(*(ada.post("/v1/jobs", spec(), key="once") for _ in range(12)))

    after = await api.rows()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.headers.get(REPLAYED) is None for answer in answers) == [False] * 11 + [True]
    assert {name: after[name] - before[name] for name in ("job", "event", "idempotency_record")} == {
        "job": 1, "event": 1, "idempotency_record": 1,
    }  # fmt: skip


async def test_racing_requests_with_one_key_and_other_bodies_create_one_of_them(api: Api, ada: Caller) -> None:
    answers = await asyncio.gather(*(ada.post("/v1/jobs", spec(name=f"job-{number}"), key="once") for number in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"idempotency_key_reused"}
    assert (await api.rows())["job"] == 1


async def test_refusal_is_not_remembered(api: Api, ada: Caller) -> None:
    refused = await ada.post("/v1/jobs", spec(gpus=9), key="once")
    await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 9_000})

    answer = await ada.post("/v1/jobs", spec(gpus=9), key="once")

    assert (refused.status_code, answer.status_code) == (422, 201)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch"])
async def test_accepted_request_is_replayed_although_it_would_be_refused_now(open_api: OpenApi, path: str) -> None:
    api = await open_api(catalog_seconds=0)
    await api.tenant()
    ada = await api.user("member")
    body = spec(gpus=8) if path == "/v1/jobs" else {"jobs": [spec(gpus=8)]}
    first = await ada.post(path, body, key="once")
    await api.operator.change("PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 1_000})

    again = await ada.post(path, body, key="once")
    new = await ada.post(path, body, key="twice")

    assert (again.status_code, again.content) == (201, first.content)
    assert problem_of(new)[:2] == (422, "exceeds_maximum")


@pytest.mark.parametrize("key", [pytest.param("", id="empty"), pytest.param("k" * (KEY_LENGTH_MAXIMUM + 1), id="too long")])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/keys"], ids=["hot route", "ordinary route"])
async def test_key_of_a_wrong_length_is_refused(api_on_sqlite: Api, path: str, key: str) -> None:
    await api_on_sqlite.tenant()
    ada = await api_on_sqlite.user("member")

    answer = await ada.post(path, spec() if path == "/v1/jobs" else {}, key=key)

    assert problem_of(answer)[:3] == (422, "invalid_request", "Idempotency-Key")


async def test_answers_are_forgotten_after_a_day_and_not_before(api: Api, ada: Caller) -> None:
    first = await ada.create("/v1/jobs", spec(), key="once")
    now_ms = clock.now_ms()

    early = await upkeep.once(api.store, api.app.state.uploads, Retention(), now_ms=now_ms + RETENTION_MS - 60_000)
    kept = await ada.create("/v1/jobs", spec(), key="once")
    late = await upkeep.once(api.store, api.app.state.uploads, Retention(), now_ms=now_ms + RETENTION_MS + 60_000)
    fresh = await ada.create("/v1/jobs", spec(), key="once")

    assert (early["answers"], late["answers"]) == (0, 1)
    assert kept == first
    assert fresh["id"] != first["id"]


async def test_replay_counts_no_job_twice(api_on_sqlite: Api) -> None:
    await api_on_sqlite.tenant()
    ada = await api_on_sqlite.user("member")
    for _ in range(3):
        await ada.create("/v1/jobs", spec(), key="once")

    text = (await api_on_sqlite.caller().get("/metrics")).text

    assert "terrace_api_jobs_accepted_total 1.0" in text
    assert 'terrace_api_requests_total{method="POST",route="/v1/jobs",status="201"} 3.0' in text


async def test_body_counts_by_its_bytes(api: Api, ada: Caller) -> None:
    await ada.create("/v1/jobs", spec(), key="once")
    spaced = json.dumps(spec(), indent=2).encode()

    answer = await ada.send("POST", "/v1/jobs", content=spaced, headers={"Content-Type": "application/json"}, key="once")

    assert problem_of(answer)[:2] == (409, "idempotency_key_reused")
