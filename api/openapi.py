"""The OpenAPI document: what FastAPI derives from the routes, completed with what it cannot know.

Owns: operation identifiers, the bearer scheme and the permissions of each operation, the problems that any route can answer with, the
schemas that only hot routes use, and the examples. Built once per process, on the first request for it. A route declares its own problems
with `problem_codes.responses`; the common ones follow here from what the route takes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from api import examples, problem_codes
from api.routing import Route
from terrace.models.common import Problem
from terrace.models.jobs import JobBatch

SCHEMAS = "#/components/schemas/"
BEARER = "bearer"
JSON_TYPE = "application/json"
_ANY_ROUTE = ("malformed_request", "internal_error", "store_busy", "store_closing", "database_unavailable")
_GATED = ("unauthenticated", "key_expired", "permission_missing", "tenant_suspended")
_WITH_JSON = ("malformed_json", "not_json", "body_too_large")


def operation_id(route: APIRoute) -> str:
    """Return the name of the handler, which clients' generators make methods of."""
    return route.name


def install(app: FastAPI, routes: list[Route]) -> None:
    """Make `app` answer with the completed document. `routes` are those with a gate or a hot body."""
    known = {route.name: route for route in routes}
    built: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not built:
            built.update(_document(app, known))
        return built

    app.openapi = document  # type: ignore[method-assign]  # the documented way


def _document(app: FastAPI, routes: dict[str, Route]) -> dict[str, Any]:
    # Routes share what they declare; what is completed below belongs to one operation.
    document = copy.deepcopy(get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes))
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, extra = models_json_schema([(Problem, "serialization"), (JobBatch, "validation")], ref_template=SCHEMAS + "{model}")
    schemas.update({name: schema for name, schema in extra["$defs"].items() if name not in schemas})
    for name in ("HTTPValidationError", "ValidationError"):  # our 422 is a problem
        schemas.pop(name, None)
    for name, value in examples.MODELS.items():
        schemas[name]["examples"] = [value]
    components["securitySchemes"] = {BEARER: {"type": "http", "scheme": "bearer", "description": "An API key: `KEY_ID.SECRET`."}}
    for operation in operations(document):
        _complete(operation, routes[operation["operationId"]])
    return document


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every operation of a document."""
    for path in document["paths"].values():
        yield from path.values()


def _complete(operation: dict[str, Any], route: Route) -> None:
    gate = route.gate
    if gate is not None:
        operation["x-permissions"] = list(gate.permissions)
    is_gated = "x-permissions" in operation
    operation["security"] = [{BEARER: []}] if is_gated else []
    body = operation.get("requestBody", {}).get("content", {})
    codes = list(_ANY_ROUTE)
    codes += _GATED if is_gated else ()
    codes += _WITH_JSON if JSON_TYPE in body else ()
    codes += ("invalid_request",) if is_gated else ()
    codes += ("outcome_unknown",) if not set(route.methods or ()) <= {"GET", "HEAD"} else ()
    _declare(operation["responses"], codes)
    name = operation["operationId"]
    _show(name, body)
    for status, answer in operation["responses"].items():
        if int(status) < 300:
            _show(name, answer.get("content", {}))


def _declare(responses: dict[str, Any], codes: list[str]) -> None:
    """Add the common problems to those that the route declares itself."""
    if problem_codes.MEDIA_TYPE not in responses.get("422", {}).get("content", {}):
        responses.pop("422", None)
    else:
        responses["422"]["content"].pop(JSON_TYPE, None)
    for status, added in problem_codes.responses(*codes).items():
        known = responses.setdefault(str(status), added)
        if known is not added:
            problem = problem_codes.MEDIA_TYPE
            content = known.setdefault("content", {}).setdefault(problem, added["content"][problem])
            content["examples"].update(added["content"][problem]["examples"])
    for status in sorted(responses):
        responses[status] = responses.pop(status)


def _show(name: str, content: dict[str, Any]) -> None:
    """Put an example beside each body of an operation."""
    for media_type, described in content.items():
        if (name, media_type) in examples.BODIES:
            described["example"] = examples.BODIES[name, media_type]
        elif media_type == JSON_TYPE:
            described["example"] = _of_model(described["schema"]["$ref"].removeprefix(SCHEMAS))


def _of_model(name: str) -> dict[str, Any]:
    if name.startswith("Page_"):
        return {"items": [examples.MODELS[name.removeprefix("Page_").removesuffix("_")]], "next_cursor": None}
    return examples.MODELS[name]
