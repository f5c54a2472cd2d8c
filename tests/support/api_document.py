"""What the API says of itself: its OpenAPI document, its operations, and the promises that every answer must keep.

`check_promises` is called with each answer that a test gets (tests/support/api.py), so that each test also tests them: no 500; a status
and a code that the operation declares; a body of a declared type that fits its schema; a refusal that is a problem and names its request.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
from jsonschema import Draft202012Validator

from api import problem_codes
from api.app import create_app
from api.settings import ApiSettings
from store.engine import Store
from terrace.models.common import Problem

MISSING = {"sha256": "0" * 64, "tenant_id": "ten_00000000000000000000"}


@dataclass(frozen=True)
class Operation:
    """One method of one path of the API, as the document describes it."""

    name: str
    method: str
    path: str
    described: Mapping[str, Any] = field(repr=False)

    @property
    def is_gated(self) -> bool:
        """True when it needs a key."""
        return "x-permissions" in self.described

    @property
    def permissions(self) -> frozenset[str]:
        """Any one of these lets a key in; none means that any key does."""
        return frozenset(self.described.get("x-permissions", ()))

    @property
    def parameters(self) -> list[str]:
        """The names in its path."""
        return re.findall(r"\{([^}]+)\}", self.path)

    @property
    def body(self) -> dict[str, Any] | None:
        """The JSON body that the document shows as an example."""
        content = self.described.get("requestBody", {}).get("content", {})
        found: dict[str, Any] | None = content.get("application/json", {}).get("example")
        return found

    def at(self, **values: str) -> str:
        """Return the path with values for its names; what is not given is the name itself, which nothing has."""
        return self.path.format_map({name: values.get(name, MISSING.get(name, f"no-{name}")) for name in self.parameters})


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document, which is the same for every application."""
    return create_app(cast(Store, None), ApiSettings(Path("unused"))).openapi()


def operations() -> list[Operation]:
    """Return every operation of the API."""
    paths = document()["paths"].items()
    return [Operation(one["operationId"], method.upper(), path, one) for path, methods in paths for method, one in methods.items()]


def check_promises(answer: httpx.Response) -> None:
    """Raise AssertionError unless the answer is what the API promises of every answer."""
    shown = f"{answer.request.method} {answer.request.url} -> {answer.status_code} {answer.text[:1_000]}"
    assert answer.status_code != 500, shown
    assert answer.headers["x-request-id"], shown
    assert answer.headers["x-content-type-options"] == "nosniff", shown
    assert answer.headers["cache-control"] == "no-store", shown
    declared = _declared(answer.request.method, answer.request.url.path)
    if declared is not None:
        assert str(answer.status_code) in declared, f"undeclared status: {shown}"
    if answer.request.method == "HEAD":
        return
    if answer.status_code < 400:
        _check_body(answer, {} if declared is None else declared[str(answer.status_code)])
        return
    assert answer.headers["content-type"] == problem_codes.MEDIA_TYPE, shown
    problem = Problem.model_validate_json(answer.content)
    assert (problem.status, problem.request_id) == (answer.status_code, answer.headers["x-request-id"]), shown
    assert problem_codes.CODES[problem.code].status == answer.status_code, shown
    assert problem.errors or answer.status_code != 422, f"names no field: {shown}"
    if declared is not None:
        assert problem.code in declared[str(answer.status_code)]["content"][problem_codes.MEDIA_TYPE]["examples"], f"undeclared: {shown}"


def _declared(method: str, path: str) -> dict[str, Any] | None:
    """Return the declared responses of an operation, None for a path or method that there is not."""
    found = (operation for pattern, operation in _templates() if operation.method == method and pattern.fullmatch(path))
    return next((operation.described["responses"] for operation in found), None)


@functools.cache
def _templates() -> list[tuple[re.Pattern[str], Operation]]:
    return [(re.compile(re.sub(r"\{[^}]+\}", "[^/]+", operation.path)), operation) for operation in operations()]


def _check_body(answer: httpx.Response, declared: dict[str, Any]) -> None:
    """Raise ValidationError or AssertionError unless the body is of a declared type and fits its schema."""
    media_type = answer.headers["content-type"].partition(";")[0]
    content = declared.get("content", {})
    assert not content or media_type in content, f"{answer.request.url}: undeclared type {media_type}"
    if media_type == "application/json" and content:
        reference = content[media_type]["schema"].get("$ref", "")
        _validator(reference or json.dumps(content[media_type]["schema"])).validate(answer.json())


@functools.cache
def _validator(schema: str) -> Draft202012Validator:
    """Return the validator of a reference into the document or of a schema as JSON."""
    own = {"$ref": schema} if schema.startswith("#") else json.loads(schema)
    return Draft202012Validator({**own, "components": document()["components"]})
