"""Creating requests: one command, answered once per Idempotency-Key.

Owns the header's rules and the response; store/idempotency.py owns the record. Called by every creating route.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi import Header, Request, Response
from pydantic_core import from_json, to_json

from api import clock, problems
from store.commands import Command
from store.engine import Store
from store.errors import InvalidError, RefusalError, StaleError
from store.idempotency import OnceOnly, Rendered
from store.identity import Principal

KEY_LENGTH_MAXIMUM = 255
RACES_MAXIMUM = 3
CREATED = 201
ERRORS_FROM = 400
REPLAYED = "Idempotency-Replayed"

T = TypeVar("T")

_KEY_DESCRIPTION = "The same key and body get the first answer again, for 24 hours."
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=KEY_LENGTH_MAXIMUM, description=_KEY_DESCRIPTION)
]
KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": _KEY_DESCRIPTION,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAXIMUM},
}


def checked_key(sent: str | None) -> str | None:
    """Return the key when its length is right; InvalidError otherwise."""
    if sent is not None and not 1 <= len(sent) <= KEY_LENGTH_MAXIMUM:
        message = f"Idempotency-Key: needs 1 to {KEY_LENGTH_MAXIMUM} characters"
        raise InvalidError("invalid_request", message, field="Idempotency-Key", limit=KEY_LENGTH_MAXIMUM)
    return sent


async def create(
    request: Request,
    principal: Principal,
    *,
    key: str | None,
    command: Command[T],
    answer: Callable[[T], Mapping[str, Any]],
    once: str | None = None,
) -> Response:
    """Run `command` once for this key and return its answer with 201. With `once`, a repetition gets 409 with that code instead."""
    store: Store = request.app.state.store

    def render(result: T) -> Rendered:
        fields = answer(result)
        text = to_json(fields).decode()
        if once is None:
            return Rendered(CREATED, text)
        problem = problems.body(409, once, "this answer is given once only; make another", data={"id": fields["id"]})
        return Rendered(CREATED, text, repeated=(409, to_json(problem).decode()))

    route = f"{request.method} {request.scope['path']}"
    digest = hashlib.sha256(await request.body()).hexdigest() if key is not None else ""
    wrapped = OnceOnly(command, render, principal.user_id, key, route, body_sha256=digest, now_ms=clock.now_ms())
    answered = await _run(store, wrapped)
    headers = {REPLAYED: "true"} if answered.is_replayed else {}
    if answered.status < ERRORS_FROM:
        return Response(answered.body, answered.status, headers, "application/json")
    return problems.response(from_json(answered.body) | {"request_id": problems.request_id_of(request)}, headers)


async def refused(request: Request, principal: Principal, *, key: str | None, refusal: RefusalError) -> Response:
    """Return the first answer to this key; raise `refusal` when there is none.

    For what is checked before the command runs: quotas and limits may have changed since a request was accepted, and sending it again must
    still give its answer.
    """
    if key is None:
        raise refusal
    return await create(request, principal, key=key, command=_Refuse(refusal), answer=_nothing)


@dataclass(frozen=True, slots=True)
class _Refuse:
    refusal: RefusalError

    def execute(self, _connection: object, /) -> NoReturn:
        """Refuse."""
        raise self.refusal


def _nothing(_result: NoReturn) -> Mapping[str, Any]:
    return {}


async def _run(store: Store, command: Command[T]) -> T:
    for _ in range(RACES_MAXIMUM - 1):
        try:
            return await store.run(command)
        except StaleError as error:
            if error.code != "idempotency_race":
                raise
    return await store.run(command)
