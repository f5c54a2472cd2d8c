"""Refusals as RFC 9457 problems with a stable `code`.

Owns the one mapping from exception to status, and the shape of validation errors: each names its field's path and the limit that it broke.
A 500 says nothing but its request identifier; the rest goes to the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api import clock
from api.auth import UnauthenticatedError
from api.problem_codes import MEDIA_TYPE
from store.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, RefusalError, StaleError, StoreBusyError
from store.postgres import OutcomeUnknownError
from terrace.models.common import LINE_PATTERN, NAME_PATTERN, TEXT_PATTERN

RETRY_AFTER_SECONDS = 1
ERRORS_MAXIMUM = 50

log = structlog.get_logger(__name__)


class TooManyRequestsError(RefusalError):
    """A rate or a queue is full; `data` says after how many seconds to try again."""


class TooLargeError(RefusalError):
    """A body is larger than its limit."""


class UnreadableError(HTTPException):
    """A body cannot be read. An HTTPException, because FastAPI turns other errors while reading a body into 400."""

    def __init__(self, status: int, code: str, message: str, *, field: str = "body", limit: object = None) -> None:
        super().__init__(status, message)
        self.code = code
        self.errors = [{"field": field, "message": message, "limit": limit}]


STATUSES: tuple[tuple[type[RefusalError], HTTPStatus], ...] = (
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (StaleError, HTTPStatus.CONFLICT),
    (ConflictError, HTTPStatus.CONFLICT),
    (TooLargeError, HTTPStatus.CONTENT_TOO_LARGE if hasattr(HTTPStatus, "CONTENT_TOO_LARGE") else HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InvalidError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TooManyRequestsError, HTTPStatus.TOO_MANY_REQUESTS),
    (StoreBusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (OutcomeUnknownError, HTTPStatus.GATEWAY_TIMEOUT),
)
_RETRYABLE = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
# What pydantic calls the limits of its constraints.
_LIMIT_KEYS = ("ge", "gt", "le", "lt", "max_length", "min_length", "pattern", "expected", "multiple_of")
_PATTERN_SENTENCES = {
    NAME_PATTERN: "takes lower-case letters, digits and, inside, hyphens",
    LINE_PATTERN: "takes one line of text without control characters",
    TEXT_PATTERN: "takes text without null characters",
}


def status_of(error: RefusalError) -> HTTPStatus:
    """Return the HTTP status of a refusal; 500 for a class that this module does not know."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def body(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, Any]] = (),
    data: Mapping[str, Any] | None = None,
    request_id: str | None = None,
) -> dict[str, Any]:
    """Return the fields of a problem (terrace.models.common.Problem)."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": list(errors),
        "data": dict(data or {}),
        "request_id": request_id,
    }


def of_refusal(error: RefusalError, *, request_id: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the problem and the headers of a refusal."""
    status = status_of(error)
    data = dict(error.data)
    field = data.pop("field", None)
    if isinstance(limit_ms := data.pop("limit_ms", None), int):
        data["limit"] = clock.rfc3339(limit_ms)
    errors = [{"field": field, "message": error.message, "limit": data.get("limit")}] if field is not None else []
    headers = {}
    if status in _RETRYABLE:
        headers["Retry-After"] = str(data.get("retry_after_seconds", RETRY_AFTER_SECONDS))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return body(status, error.code, error.message, errors=errors, data=data, request_id=request_id), headers


def response(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as an HTTP response."""
    return Response(to_json(problem, fallback=str), problem["status"], dict(headers or {}), MEDIA_TYPE)


def of_unreadable(error: UnreadableError, *, request_id: str | None = None) -> dict[str, Any]:
    """Return the problem of a request that cannot be read."""
    return body(error.status_code, error.code, error.detail, errors=error.errors, request_id=request_id)


def field_path(location: Sequence[str | int]) -> str:
    """Return where an error is, as `jobs[3].gpus`, `limit` or `Idempotency-Key`; which part of the request that is in, the name tells."""
    parts = list(location)
    if parts and parts[0] in ("body", "path", "query", "header"):
        parts = parts[1:]
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else str(part))
    return path or "body"


def validation_errors(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return pydantic's errors as fields with messages and limits, at most `ERRORS_MAXIMUM`. What was sent is not repeated."""
    answers = []
    for error in errors[:ERRORS_MAXIMUM]:
        context = error.get("ctx", {})
        limit = next((context[key] for key in _LIMIT_KEYS if key in context), None)
        message = _PATTERN_SENTENCES.get(str(limit), error["msg"])
        answers.append({"field": field_path(error["loc"]), "message": message, "limit": limit})
    return answers


def request_id_of(request: Request) -> str | None:
    """Return what the request is called in answers and logs."""
    identifier: str | None = request.scope.get("terrace.request_id")
    return identifier


async def _on_refusal(request: Request, error: Exception) -> Response:
    if not isinstance(error, RefusalError):
        raise error
    return response(*of_refusal(error, request_id=request_id_of(request)))


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = validation_errors(error.errors())
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors[:3])
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return response(body(status, "invalid_request", detail, errors=errors, request_id=request_id_of(request)))


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error, UnreadableError):
        headers = {"Connection": "close"} if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else {}
        return response(of_unreadable(error, request_id=request_id_of(request)), headers)
    codes = {404: "route_not_found", 405: "method_not_allowed", 400: "malformed_request"}
    code = codes.get(error.status_code, "http_error")
    return response(body(error.status_code, code, str(error.detail), request_id=request_id_of(request)), error.headers)


async def _on_disconnect(request: Request, _error: Exception) -> Response:
    """The client left while it was sending: nobody reads this, and it is no defect."""
    return response(body(400, "malformed_request", "the client left", request_id=request_id_of(request)))


def of_defect(error: Exception, *, method: str, path: str, request_id: str) -> dict[str, Any]:
    """Log a defect and return its problem, which tells nothing."""
    log.error("request failed", request_id=request_id, method=method, path=path, exc_info=error)
    return body(500, "internal_error", "the service failed; quote the request_id", request_id=request_id)


def install(app: FastAPI) -> None:
    """Make every refusal of `app` a problem. Defects are the edge's, outside of everything."""
    app.add_exception_handler(RefusalError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
