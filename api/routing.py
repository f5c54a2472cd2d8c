"""How a request reaches its handler: the key is checked first, then the body is read, as JSON and nothing else.

Owns the order (FastAPI reads and parses a body before it asks any dependency, so strangers could make the service work) and what JSON is:
no NaN, no lone surrogates, bounded depth; and that a parameter which a route does not take is refused. Every router of the API makes its
routes of `Route`. The hot routes read their bodies themselves (hot_bodies.py) and keep the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json

from api.permissions import Gate
from api.problems import UnreadableError

JSON_TYPE = "application/json"
SHOWN_CHARACTERS_MAXIMUM = 100


def malformed_json(why: str) -> UnreadableError:
    """Return the refusal of a body that is not JSON; `why` says where."""
    return UnreadableError(422, "malformed_json", f"body: {why}")


def check_content_type(request: Request) -> None:
    """Raise UnreadableError unless the request says that its body is JSON."""
    sent = request.headers.get("content-type", "")
    if sent.partition(";")[0].strip().lower() != JSON_TYPE:
        message = f"Content-Type: this route takes {JSON_TYPE}, not {sent[:SHOWN_CHARACTERS_MAXIMUM]!r}"
        raise UnreadableError(415, "not_json", message, field="Content-Type", limit=JSON_TYPE)


def check_query(request: Request, names: Collection[str]) -> None:
    """Raise RequestValidationError for a parameter that the route does not take: a misspelt filter would answer with everything."""
    if not request.scope["query_string"]:
        return
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        message = f"there is no such parameter; there are {', '.join(sorted(names))}" if names else "this route takes no parameters"
        raise RequestValidationError([{"type": "unknown", "loc": ("query", name), "msg": message} for name in unknown])


class StrictRequest(Request):
    """A request whose body is parsed once, strictly."""

    _parsed: Any

    async def json(self) -> Any:
        """Return the body; UnreadableError when it is not JSON."""
        if not hasattr(self, "_parsed"):
            check_content_type(self)
            try:
                self._parsed = from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise malformed_json(str(error)) from error
        return self._parsed


class Route(APIRoute):
    """A route whose gate is asked before anything of the body is read."""

    @property
    def gate(self) -> Gate | None:
        """Who may come in, None for a route without a key and for hot routes, which ask their own."""
        return next((item.call for item in self.dependant.dependencies if isinstance(item.call, Gate)), None)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the gate before it."""
        handle, gate, takes_body = super().get_route_handler(), self.gate, self.body_field is not None
        names = {parameter.alias for parameter in self.dependant.query_params}

        async def handle_admitted(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if gate is not None:
                await gate(strict)
                check_query(strict, names)
            if takes_body and await strict.body():
                check_content_type(strict)
            return await handle(strict)

        return handle_admitted


def router(prefix: str, tag: str) -> APIRouter:
    """Return a router of such routes."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=Route)
