"""Reading the body of a hot route without the framework's dependency machinery, which costs more than the insert.

Does in three steps what a declared body, header and dependency do elsewhere: the principal, the Idempotency-Key, the parsed body. Errors
are the same problems, and `openapi` declares the same schema. Used by the submit routes only; every other route declares its parameters.
"""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api import replays, routing
from api.permissions import Needs
from store.identity import Principal

Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, model: type[Body], needs: Needs) -> tuple[Principal, str | None, Body]:
    """Return who asks, the Idempotency-Key and the body; refusals and RequestValidationError as elsewhere."""
    principal = await needs(request)
    key = replays.checked_key(request.headers.get("idempotency-key"))
    routing.check_query(request, ())
    routing.check_content_type(request)
    try:
        body = model.model_validate_json(await request.body())
    except ValidationError as error:
        raise _refusal(error) from error
    return principal, key, body


def _refusal(error: ValidationError) -> Exception:
    errors = error.errors(include_url=False, include_input=False)
    if errors[0]["type"] == "json_invalid":
        return routing.malformed_json(errors[0]["ctx"]["error"])
    # The framework's own errors begin with where in the request they are.
    return RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in errors])


def openapi(model: type[BaseModel], needs: Needs) -> dict[str, Any]:
    """Return what a declared body, gate and Idempotency-Key header would add to the route's OpenAPI operation."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "parameters": [replays.KEY_PARAMETER],
        "x-permissions": list(needs.permissions),
    }
