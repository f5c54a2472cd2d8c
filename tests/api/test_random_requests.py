"""Random requests made from the OpenAPI document: nothing is answered with 500, and nothing with a status or code that is not declared.

Bodies and parameters come from their schemas, valid and spoilt; `check_promises` holds every answer against the document. Failures print
the seed with which hypothesis finds them again.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.api import Api, Caller
from tests.support.api_document import Operation, document, operations

EXAMPLES = int(os.environ.get("TERRACE_RANDOM_REQUESTS", "40"))  # of each operation
ANSWER_SECONDS_MAXIMUM = 60
ALL = operations()
KNOWN = ["acme", "default", "h200", "node-1", "standard", "operator", "jobs:read", "USD", "queued", "cpu", "*"]
MOMENTS = [
    "2026-11-24T02:22:12Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "2026-11-24T02:22:12",
    "2030-01-01T00:00:00.5+07:00",
]
NAMES = st.one_of(st.sampled_from(["acme", "node-1", "default", "0" * 64]), st.text(max_size=12))
STRINGS = st.one_of(st.sampled_from(KNOWN), st.text(max_size=20), st.sampled_from(MOMENTS), st.just("x" * 10_000), st.just("a\0b"))
INTEGERS = st.one_of(st.integers(-2, 5), st.integers(), st.sampled_from([2**31, 2**53, 2**63, 2**64, 10**30]))
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(allow_nan=False, allow_infinity=False), STRINGS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(STRINGS, inner, max_size=3)),
    max_leaves=6,
)


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values for a schema: mostly of the right type, in or out of range."""
    if "$ref" in schema:
        return of_schema(document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of([of_schema(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), STRINGS)
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        required = {name: of_schema(schema["properties"][name]) for name in schema.get("required", ())}
        optional = {name: of_schema(one) for name, one in schema["properties"].items() if name not in required}
        return st.one_of(st.fixed_dictionaries(required, optional=optional), ANYTHING)
    if kind == "object":
        return st.dictionaries(STRINGS, ANYTHING, max_size=3)
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {})), max_size=4)
    plain = {"string": STRINGS, "integer": INTEGERS, "number": st.floats(), "boolean": st.booleans(), "null": st.none()}
    return st.one_of(plain[kind], ANYTHING) if kind in plain else ANYTHING


@st.composite
def requests(draw: st.DrawFn, operation: Operation) -> dict[str, Any]:
    """Return what to send to an operation."""
    path = {name: draw(NAMES) for name in operation.parameters}
    queries = [one for one in operation.described.get("parameters", []) if one["in"] == "query" and one["name"] != "follow"]
    query = {one["name"]: draw(of_schema(one["schema"])) for one in queries if draw(st.booleans())}
    sent: dict[str, Any] = {"path": path, "params": {name: value for name, value in query.items() if not isinstance(value, dict)}}
    if operation.body is not None:
        sent["json"] = draw(of_schema(operation.described["requestBody"]["content"]["application/json"]["schema"]))
    elif "requestBody" in operation.described:
        sent["content"] = draw(st.binary(max_size=50))
    return sent


def path_of(operation: Operation, values: dict[str, str]) -> str:
    """Return a path whose values can hold anything."""
    quoted = {name: "".join(f"%{byte:02X}" for byte in value.encode("utf-8", "replace")) or "-" for name, value in values.items()}
    return operation.path.format_map(quoted)


def callers(operation: Operation, known: dict[str, Caller]) -> list[Caller]:
    """Return those who may call an operation, or nobody in particular."""
    roles = {"agents:speak": ["agent"], "jobs:write": ["ada"], "archives:write": ["ada"], "estimates:write": ["ada"]}
    names = next((roles[one] for one in operation.permissions if one in roles), ["operator", "ada"])
    return [known[name] for name in names]


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.name)
async def test_random_requests_get_declared_answers(open_api: Any, operation: Operation) -> None:
    api: Api = await open_api(estimates_per_minute=1_000_000)
    await api.tenant()
    known = {"operator": api.operator, "ada": await api.user("admin"), "agent": await api.node()}
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        derandomize=True,
    )
    @given(sent=requests(operation), who=st.sampled_from(callers(operation, known)), key=st.one_of(st.none(), st.text(max_size=5)))
    def hold(sent: dict[str, Any], who: Caller, key: str | None) -> None:
        options = {name: value for name, value in sent.items() if name not in ("path", "json")}
        if "json" in sent:
            options |= {"content": json.dumps(sent["json"]), "headers": {"Content-Type": "application/json"}}
        usable = key.encode("ascii", "ignore").decode() if key is not None else None
        request = who.send(operation.method, path_of(operation, sent["path"]), key=usable, **options)
        asyncio.run_coroutine_threadsafe(request, loop).result(ANSWER_SECONDS_MAXIMUM)

    await asyncio.to_thread(hold)
