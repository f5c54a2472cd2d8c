"""Server-sent events: one loop for every stream.

Owns: how a stream waits for the store, keeps quiet lines alive, when it ends, and how many are open at once, of a tenant and of all. A
stream ends after a named time, when the process is told to stop, when its key no longer works, and when its reader no longer reads. What a
stream says is a step function of its route. A client that was cut off resumes by the standard Last-Event-ID header.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from pydantic_core import to_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from api import clock
from api.problems import TooManyRequestsError
from api.settings import ApiSettings
from store.errors import RefusalError
from store.identity import Principal

STREAM_RETRY_SECONDS = 5
LOOK_UP_SECONDS = 0.5  # how soon a waiting stream notices that its key was revoked or that this process is told to stop
STOP_SECONDS_MAXIMUM = 3.0  # a stream of a process that is told to stop ends by itself; after this it is cut off
REREAD_SECONDS = 0.05  # a busy store changes all the time; a quiet stream reads again this often at most
MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Step:
    """What a stream says next. An empty step waits for a change, at most `quiet_seconds`; `is_last` ends the stream."""

    events: list[ServerSentEvent]
    is_last: bool
    quiet_seconds: float


@dataclass
class OpenStreams:
    """How many streams are open in this process, of whom."""

    settings: ApiSettings
    by_tenant: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Streams open now."""
        return self.by_tenant.total()

    def enter(self, tenant: str) -> None:
        """Count one more; TooManyRequestsError over a limit."""
        limits = (
            ("streams_maximum", self.total, self.settings.streams_maximum),
            ("streams_per_tenant_maximum", self.by_tenant[tenant], self.settings.streams_per_tenant_maximum),
        )
        for name, count, maximum in limits:
            if count >= maximum:
                message = f"{name} = {maximum} event streams are open already"
                raise TooManyRequestsError("too_many_streams", message, limit=maximum, retry_after_seconds=STREAM_RETRY_SECONDS)
        self.by_tenant[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Count one less."""
        self.by_tenant[tenant] -= 1
        if not self.by_tenant[tenant]:
            del self.by_tenant[tenant]


class _Response(EventSourceResponse):
    """A stream that gives its place back however it ends."""

    def __init__(self, content: AsyncIterator[ServerSentEvent], opened: OpenStreams, tenant: str, **options: Any) -> None:
        super().__init__(content, **options)
        self._opened, self._tenant = opened, tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            return  # the reader no longer reads: the server closes the connection of an answer that did not end
        finally:
            self._opened.leave(self._tenant)


def event(kind: str, data: object, *, identifier: int | None = None) -> ServerSentEvent:
    """Return one event whose data is JSON, so that no text can break a line of the stream."""
    return ServerSentEvent(to_json(data).decode(), event=kind, id=None if identifier is None else str(identifier))


def start(identifier: int) -> ServerSentEvent:
    """Return what tells a reader where its stream begins: no event, but the id to resume from for who is cut off before the first."""
    return ServerSentEvent(id=str(identifier))


def is_wanted(request: Request, *, follow: bool) -> bool:
    """Tell whether the client asked for a stream, by `follow` or by its Accept header."""
    return follow or MEDIA_TYPE in request.headers.get("accept", "")


def last_event_id(request: Request) -> int | None:
    """Return the number in Last-Event-ID, None when there is none or it is none of ours."""
    sent = request.headers.get("last-event-id", "")
    return int(sent) if sent.isascii() and sent.isdigit() and len(sent) <= 18 else None


def respond(request: Request, principal: Principal, step: Callable[[], Awaitable[Step]]) -> EventSourceResponse:
    """Return a stream that calls `step` until its last; TooManyRequestsError when too many are open."""
    state, tenant = request.app.state, principal.tenant_id or ""
    state.streams.enter(tenant)
    return _Response(
        _run(request, step),
        state.streams,
        tenant,
        ping=state.settings.heartbeat_seconds,
        send_timeout=state.settings.stream_send_seconds_maximum,
        shutdown_grace_period=STOP_SECONDS_MAXIMUM,
        headers={"Cache-Control": "no-store"},
    )


async def _run(request: Request, step: Callable[[], Awaitable[Step]]) -> AsyncIterator[ServerSentEvent]:
    state = request.app.state
    deadline = clock.monotonic() + state.settings.stream_seconds_maximum
    while await _may_go_on(request, deadline):
        mark = state.changes.mark()
        try:
            said = await step()
        except RefusalError:  # the database went away, or what is followed did: the client asks again and is told
            return
        for item in said.events:
            yield item
        if said.is_last:
            return
        if not said.events:
            until = min(deadline, clock.monotonic() + said.quiet_seconds)
            while not await state.changes.wait(mark, LOOK_UP_SECONDS) and await _may_go_on(request, until):
                pass
            await asyncio.sleep(REREAD_SECONDS)


async def _may_go_on(request: Request, deadline: float) -> bool:
    state = request.app.state
    if state.is_stopping or clock.monotonic() >= deadline:
        return False
    try:
        await state.authenticator.authenticate(request.headers.get("authorization"))
    except RefusalError:
        return False
    return True
