from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api import problem_codes
from store.errors import StoreBusyError
from tests.api.conftest import OpenApi
from tests.support.api import Api, problem_of, spec

REPOSITORY = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
# Raised to other parts of the service only.
INTERNAL = {"not_leading"}
_RAISED = re.compile(
    r"(?:(?:NotFound|Conflict|Forbidden|Invalid|Stale|StoreBusy|Unauthenticated|TooManyRequests|TooLarge|OutcomeUnknown)Error|refused_as|"
    r"_?refuse|problems\.body)\(\s*(?:\d+,\s*)?\"([a-z_]+)\"|(?:UnreadableError|problems\.body|body)\(\s*[\w.]+,\s*\"([a-z_]+)\""
)


def codes_in_the_source() -> set[str]:
    """Return every code that the API or the store refuses with."""
    sources = [path.read_text() for folder in ("api", "store") for path in (REPOSITORY / folder).rglob("*.py")]
    return {first or second for text in sources for first, second in _RAISED.findall(text)} - INTERNAL


def test_every_code_in_the_source_is_in_the_table() -> None:
    assert codes_in_the_source() - set(problem_codes.CODES) == set()


def test_every_code_in_the_table_is_in_the_source() -> None:
    by_status = {"route_not_found", "method_not_allowed", "malformed_request", "http_error"}  # problems.py takes them from the HTTP layer
    passed_on = {"secret_shown_once"}  # an argument of replays.create
    passed_on |= {"archive_member_kind", "archive_member_path", "archive_too_many_members"}  # of the rules that agents share

    assert set(problem_codes.CODES) - codes_in_the_source() <= by_status | passed_on


def test_every_code_is_documented_with_its_status_and_meaning() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", (REPOSITORY / "docs/api.md").read_text(), re.MULTILINE)

    assert {code: (int(status), text) for status, code, text in listed} == {
        code: (meaning.status, meaning.text) for code, meaning in problem_codes.CODES.items()
    }


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        pytest.param("GET", "/", (404, "route_not_found"), id="the root"),
        pytest.param("GET", "/v1/nothing", (404, "route_not_found"), id="a path that is not there"),
        pytest.param("GET", "/v1/jobs/", (404, "route_not_found"), id="a slash too many is no redirect"),
        pytest.param("GET", "/docs", (404, "route_not_found"), id="no page that loads scripts from elsewhere"),
        pytest.param("PUT", "/v1/jobs", (405, "method_not_allowed"), id="a method that the path does not take"),
        pytest.param("OPTIONS", "/v1/jobs", (405, "method_not_allowed"), id="a browser of another origin"),
        pytest.param("GET", "/v1/jobs/%00", (400, "malformed_request"), id="a null character in the path"),
        pytest.param("GET", "/v1/users?name=%00", (400, "malformed_request"), id="a null character in the query"),
    ],
)
async def test_request_that_no_route_takes_is_a_problem(api_on_sqlite: Api, method: str, path: str, expected: tuple[int, str]) -> None:
    from_a_page = {"Origin": "https://evil.test", "Access-Control-Request-Method": "GET"}

    answer = await api_on_sqlite.operator.send(method, path, headers=from_a_page)

    assert problem_of(answer)[:2] == expected
    assert [name for name in answer.headers if name.startswith("access-control")] == []


@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/jobs"], ids=["ordinary route", "hot route"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="cut off"),
        pytest.param(b'{"name": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b"[" * 100_000, id="nested deeply"),
        pytest.param(b'{"name": ' + b"1" * 5_000 + b"}", id="a number of 5,000 digits"),
        pytest.param(b'{"name": "\xff"}', id="no UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b"name=acme", id="a form"),
    ],
)
async def test_body_that_is_not_json_is_refused(api_on_sqlite: Api, path: str, body: bytes) -> None:
    await api_on_sqlite.tenant()
    caller = await api_on_sqlite.user("member") if path == "/v1/jobs" else api_on_sqlite.operator

    answer = await caller.send("POST", path, content=body, headers=JSON)

    assert problem_of(answer) == (422, "malformed_json", "body", None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
async def test_number_that_json_does_not_have_is_refused(api_on_sqlite: Api, number: str) -> None:
    body = f'{{"name": "acme", "weight_milli": {number}}}'.encode()

    answer = await api_on_sqlite.operator.send("POST", "/v1/tenants", content=body, headers=JSON)

    assert problem_of(answer) == (422, "malformed_json", "body", None)


@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/jobs"], ids=["ordinary route", "hot route"])
@pytest.mark.parametrize("sent", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_body_of_another_type_is_refused(api_on_sqlite: Api, path: str, sent: str) -> None:
    await api_on_sqlite.tenant()
    caller = await api_on_sqlite.user("member") if path == "/v1/jobs" else api_on_sqlite.operator

    answer = await caller.send("POST", path, content=b'{"name": "globex"}', headers={"Content-Type": sent})

    assert problem_of(answer) == (415, "not_json", "Content-Type", "application/json")


@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/jobs"], ids=["ordinary route", "hot route"])
@pytest.mark.parametrize("is_declared", [True, False], ids=["length declared", "in chunks"])
async def test_oversized_body_is_refused(open_api: OpenApi, path: str, is_declared: bool) -> None:
    api = await open_api(body_bytes_maximum=1_000)
    await api.tenant()
    caller = await api.user("member") if path == "/v1/jobs" else api.operator
    before = await api.rows()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    answer = await caller.send("POST", path, content=b" " * 1_001 if is_declared else pieces(), headers=JSON)

    assert problem_of(answer) == (413, "body_too_large", "body", 1_000)
    assert answer.headers["connection"] == "close"
    assert await api.rows() == before


async def test_request_is_called_what_its_sender_called_it(api_on_sqlite: Api) -> None:
    named = await api_on_sqlite.operator.get("/v1/jobs/none", headers={"X-Request-Id": "from-the-proxy.7"})
    forged = await api_on_sqlite.operator.get("/v1/jobs/none", headers={"X-Request-Id": "a\tb" + "c" * 100})

    assert named.json()["request_id"] == named.headers["x-request-id"] == "from-the-proxy.7"
    assert re.fullmatch(r"[0-9a-f]{16}", forged.headers["x-request-id"])


async def test_defect_tells_nothing_but_the_name_of_the_request(api_on_sqlite: Api) -> None:
    async def broken() -> None:
        raise RuntimeError("secret: the password is 1234")

    api_on_sqlite.app.add_api_route("/broken", broken)

    answer = await api_on_sqlite.http.get("/broken")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "1234" not in answer.text


async def test_busy_store_asks_to_come_back(api_on_sqlite: Api) -> None:
    async def busy() -> None:
        raise StoreBusyError("store_busy", "20000 changes are waiting already; try again later", limit=20_000)

    api_on_sqlite.app.add_api_route("/busy", busy)

    answer = await api_on_sqlite.operator.get("/busy")

    assert problem_of(answer)[:2] == (503, "store_busy")
    assert (answer.headers["retry-after"], answer.json()["data"]) == ("1", {"limit": 20_000})


async def test_every_wrong_field_is_named_with_its_limit(api_on_sqlite: Api) -> None:
    await api_on_sqlite.tenant()
    ada = await api_on_sqlite.user("member")

    answer = await ada.post("/v1/jobs", spec(replicas=0, gpus=-1, limit_seconds=0, colour="red", environment={"1X": "a"}))

    errors = {error["field"]: (error["message"], error["limit"]) for error in answer.json()["errors"]}
    assert errors == {
        "replicas": ("Input should be greater than or equal to 1", 1),
        "gpus": ("Input should be greater than or equal to 0", 0),
        "limit_seconds": ("Input should be greater than or equal to 1", 1),
        "colour": ("Extra inputs are not permitted", None),
        "environment.1X.[key]": ("String should match pattern '^[A-Za-z_][A-Za-z0-9_]*$'", "^[A-Za-z_][A-Za-z0-9_]*$"),
    }
    assert "red" not in answer.text
