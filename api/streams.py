"""Server-sent events: one loop for every stream.

Owns: how a stream waits for the store, keeps quiet lines alive, ends after a named time, and how many are open at once. What a stream
says is a step function of its route. A client that was cut off resumes by the standard Last-Event-ID header.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from pydantic_core import to_json
from sse_starlette import EventSourceResponse, ServerSentEvent

from api import clock
from api.problems import TooManyRequestsError

STREAM_RETRY_SECONDS = 5
MEDIA_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Step:
    """What a stream says next. An empty step waits for a change; `is_last` ends the stream."""

    events: list[ServerSentEvent]
    is_last: bool = False


def event(kind: str, data: object, *, identifier: int | None = None) -> ServerSentEvent:
    """Return one event whose data is JSON, so that no text can break a line of the stream."""
    return ServerSentEvent(to_json(data).decode(), event=kind, id=None if identifier is None else str(identifier))


def is_wanted(request: Request, *, follow: bool) -> bool:
    """Tell whether the client asked for a stream, by `follow` or by its Accept header."""
    return follow or MEDIA_TYPE in request.headers.get("accept", "")


def last_event_id(request: Request) -> int | None:
    """Return the number in Last-Event-ID, None when there is none or it is none of ours."""
    sent = request.headers.get("last-event-id", "")
    return int(sent) if sent.isascii() and sent.isdigit() and len(sent) <= 18 else None


def respond(request: Request, step: Callable[[], Awaitable[Step]]) -> EventSourceResponse:
    """Return a stream that calls `step` until its last; TooManyRequestsError when too many are open."""
    state = request.app.state
    maximum = state.settings.streams_maximum
    if state.open_streams >= maximum:
        message = f"streams_maximum = {maximum} event streams are open already"
        raise TooManyRequestsError("too_many_streams", message, limit=maximum, retry_after_seconds=STREAM_RETRY_SECONDS)
    return EventSourceResponse(_run(request, step), ping=state.settings.heartbeat_seconds, headers={"Cache-Control": "no-store"})


async def _run(request: Request, step: Callable[[], Awaitable[Step]]) -> AsyncIterator[ServerSentEvent]:
    state = request.app.state
    deadline = clock.monotonic() + state.settings.stream_seconds_maximum
    state.open_streams += 1
    try:
        while clock.monotonic() < deadline:
            mark = state.store.change_mark()
            said = await step()
            for item in said.events:
                yield item
            if said.is_last:
                return
            if not said.events:
                await state.store.wait_for_change(mark, min(state.settings.heartbeat_seconds, max(0.0, deadline - clock.monotonic())))
    finally:
        state.open_streams -= 1
