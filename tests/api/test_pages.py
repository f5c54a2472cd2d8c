from __future__ import annotations

import base64
from typing import Any

import pytest

from terrace.models.common import PAGE_LIMIT_MAXIMUM
from tests.support.api import Api, Caller, problem_of, spec
from tests.support.api_document import operations

PAGED = [item for item in operations() if any(one["name"] == "cursor" for one in item.described.get("parameters", []))]
LISTINGS = [item for item in PAGED if item.name != "read_assignments"]  # its cursor names a state, not a place


async def pages(caller: Caller, path: str, *, limit: int) -> list[list[Any]]:
    """Return every page of a listing."""
    found: list[list[Any]] = []
    cursor: str | None = None
    while True:
        page = await caller.fetch(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {}))
        found.append(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def filled(api: Api) -> Caller:
    """Make at least three of everything that is listed; return the operator."""
    for name in ("acme", "globex", "initech"):
        await api.tenant(name, gpus=2)
        await api.user("admin", tenant=name)
        await api.node(f"node-{name}", gpus=1)
    ada = await api.user("member", tenant="acme", name="ada")
    await ada.create("/v1/jobs/batch", {"jobs": [spec() for _ in range(5)]})
    await api.operator.create("/v1/tenants/acme/projects", {"name": "vision"})
    await api.operator.create("/v1/tenants/acme/projects", {"name": "audio"})
    for number, name in enumerate(("course", "contest", "sandbox")):
        window = {"start": f"2090-01-0{number + 1}T00:00:00Z", "end": f"2090-01-0{number + 1}T01:00:00Z"}
        await api.operator.create("/v1/cohorts", {"name": name})
        await api.operator.create("/v1/reservations", {"name": name, "tenant": "acme", "flavor": "h200", "gpus": 1} | window)
        await api.operator.create("/v1/maintenance", {"name": name, "nodes": ["node-acme"]} | window)
    return api.operator


@pytest.mark.parametrize("limit", [1, 2])
async def test_pages_of_every_listing_add_up_to_the_whole(api: Api, limit: int) -> None:
    operator = await filled(api)
    jobs = (await operator.fetch("/v1/jobs"))["items"]
    paths = {item.name: item.at(tenant="acme", job_id=jobs[0]["id"]) for item in LISTINGS}

    whole = {name: (await operator.fetch(path, params={"limit": PAGE_LIMIT_MAXIMUM}))["items"] for name, path in paths.items()}
    cut = {name: await pages(operator, path, limit=limit) for name, path in paths.items()}

    assert {name: [item for page in cut[name] for item in page] for name in cut} == whole
    assert all(len(page) <= limit for found in cut.values() for page in found)
    assert all(len(items) >= 3 for name, items in whole.items() if name != "read_job_events")


async def test_rows_made_meanwhile_shift_no_page(api: Api) -> None:
    await api.tenant()
    ada = await api.user("member")
    old = [(await ada.submit())["id"] for _ in range(4)]
    first = await ada.fetch("/v1/jobs", params={"limit": 2})

    await ada.create("/v1/jobs/batch", {"jobs": [spec() for _ in range(3)]})
    second = await ada.fetch("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]})

    assert [job["id"] for job in first["items"] + second["items"]] == old[::-1]


async def test_last_page_says_so(api: Api) -> None:
    await api.tenant()
    ada = await api.user("member")
    await ada.submit()

    page = await ada.fetch("/v1/jobs", params={"limit": 2})
    empty = await ada.fetch("/v1/jobs", params={"state": "failed"})

    assert (len(page["items"]), page["next_cursor"]) == (1, None)
    assert empty == {"items": [], "next_cursor": None}


def encoded(text: bytes) -> str:
    """Return what a cursor would be for this key."""
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("%%%", id="no base64"),
        pytest.param("é", id="no ASCII"),
        pytest.param("A", id="half a letter"),
        pytest.param(encoded(b"\xff\xfe"), id="no text"),
        pytest.param(encoded(b"a\x00b"), id="a null character inside"),
        pytest.param(encoded(b"a\nb"), id="a line break inside"),
    ],
)
async def test_cursor_that_is_none_of_ours_is_refused_by_every_listing(api: Api, cursor: str) -> None:
    await api.tenant()
    ada = await api.user("member")
    job = await ada.submit()

    answers = {item.name: await api.operator.get(item.at(tenant="acme", job_id=job["id"]), params={"cursor": cursor}) for item in LISTINGS}

    assert {name: problem_of(answer)[:3] for name, answer in answers.items()} == dict.fromkeys(answers, (422, "invalid_cursor", "cursor"))


@pytest.mark.parametrize("key", [b"not-a-number", b"-1", b"9" * 30, "٣".encode()], ids=["a word", "negative", "huge", "other digits"])
async def test_cursor_of_a_numbered_listing_must_be_a_number(api_on_sqlite: Api, key: bytes) -> None:
    answer = await api_on_sqlite.operator.get("/v1/jobs", params={"cursor": encoded(key)})

    assert problem_of(answer)[:3] == (422, "invalid_cursor", "cursor")


@pytest.mark.parametrize(
    ("query", "field", "limit"),
    [
        pytest.param({"limit": 0}, "limit", 1, id="no items"),
        pytest.param({"limit": -1}, "limit", 1, id="a negative number"),
        pytest.param({"limit": PAGE_LIMIT_MAXIMUM + 1}, "limit", PAGE_LIMIT_MAXIMUM, id="more than the maximum"),
        pytest.param({"limit": "many"}, "limit", None, id="no number"),
        pytest.param({"cursor": "A" * 257}, "cursor", 256, id="a cursor that is too long"),
    ],
)
async def test_limit_and_cursor_out_of_range_are_refused_by_every_listing(
    api_on_sqlite: Api, query: dict[str, Any], field: str, limit: int | None
) -> None:
    answers = {item.name: await api_on_sqlite.operator.get(item.at(), params=query) for item in LISTINGS}

    assert {name: problem_of(answer) for name, answer in answers.items()} == dict.fromkeys(answers, (422, "invalid_request", field, limit))
