"""Logs and events: as a page or text, and as server-sent events.

A log's event id is the byte offset after its piece, an event's id is its own; both resume by Last-Event-ID. Streams of one attempt or one
job end with an `end` event; the tenant's stream goes on until the client leaves or its time is over.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from api import answers, pages, problem_codes, routing, streams
from api.permissions import Needs
from api.streams import Step
from domain.states import JobState
from store.engine import Store
from store.events import SETTLE_MS, EventsAfter, NewestEvent
from store.identity import Principal
from store.job_reads import JobById
from store.logs import LogPart, ReadLog
from terrace.models.common import Page
from terrace.models.jobs import ATTEMPTS_MAXIMUM, EventAnswer

router = routing.router("/v1", "streams")

OFFSET_MAXIMUM = 1 << 50
STREAM_PAGE = 200
QUIET_SECONDS = 15.0  # how long a stream trusts that nothing changed

ReadsJobs = Annotated[Principal, Depends(Needs("jobs:read"))]
ReadsLogs = Annotated[Principal, Depends(Needs("logs:read"))]
ReadsEvents = Annotated[Principal, Depends(Needs("events:read"))]
Follow = Annotated[bool, Query(description="Answer with server-sent events and go on until the end.")]
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {streams.MEDIA_TYPE: {"schema": {"type": "string"}}}}}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_REFUSALS = problem_codes.responses("too_many_streams", "job_not_found", "invalid_cursor")
_EVENTS = _STREAM | _REFUSALS
_LOG: dict[int | str, dict[str, Any]] = {200: {"content": _STREAM[200]["content"] | _TEXT[200]["content"]}}
_LOG |= problem_codes.responses("too_many_streams", "job_not_found", "attempt_not_found")


@dataclass
class _LogStream:
    """Follows one attempt; with none named, the newest one, as soon as there is one."""

    store: Store
    job_id: str
    tenant_id: str | None
    attempt: int | None
    offset: int
    decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))

    def __post_init__(self) -> None:
        self.decoder.errors = "replace"

    async def step(self) -> Step:
        """Return the next piece."""
        part = await self.store.read(ReadLog(self.job_id, self.tenant_id, self.attempt, self.offset))
        if part.attempt:
            self.attempt = part.attempt
        self.offset = part.next_offset
        events = [] if not part.data and not part.is_complete else self._events(part)
        return Step(events, part.is_complete, QUIET_SECONDS)

    def _events(self, part: LogPart) -> list[Any]:
        text = self.decoder.decode(part.data, final=part.is_complete)
        # Bytes of a character that is not whole yet wait in the decoder; a client that resumes must get them again.
        sent_through = part.next_offset - len(self.decoder.getstate()[0])
        events = []
        if text:
            piece = {"attempt": part.attempt, "next_offset": sent_through, "text": text}
            events.append(streams.event("log", piece, identifier=sent_through))
        if part.is_complete:
            events.append(streams.event("end", {"attempt": part.attempt, "next_offset": part.next_offset, "state": part.state}))
        return events


@router.get("/jobs/{job_id}/logs", response_class=Response, responses=_LOG)
async def read_logs(
    request: Request,
    principal: ReadsLogs,
    job_id: str,
    attempt: Annotated[int | None, Query(ge=1, le=ATTEMPTS_MAXIMUM, description="Default: the newest.")] = None,
    offset: Annotated[int, Query(ge=0, le=OFFSET_MAXIMUM, description="Bytes of output to skip.")] = 0,
    follow: Follow = False,
) -> Response:
    """Return a job's output from `offset` on, or stream it until its attempt ends. Ask again from X-Log-Next-Offset for more."""
    store: Store = request.app.state.store
    part = await store.read(ReadLog(job_id, principal.tenant_id, attempt, offset))
    if streams.is_wanted(request, follow=follow):
        resumed = streams.last_event_id(request)
        follower = _LogStream(store, job_id, principal.tenant_id, attempt, offset if resumed is None else resumed)
        return streams.respond(request, principal, follower.step)
    headers = {
        "X-Log-Attempt": str(part.attempt),
        "X-Log-Next-Offset": str(part.next_offset),
        "X-Log-Complete": "true" if part.is_complete else "false",
    }
    return Response(part.data, headers=headers, media_type="text/plain; charset=utf-8")


@dataclass
class _EventStream:
    """Follows a tenant's events, or those of one job until it has ended. One that begins at the newest event says first where that is."""

    store: Store
    after: int
    tenant_id: str | None
    job_id: str | None = None
    says_start: bool = False

    async def step(self) -> Step:
        """Return the next events."""
        if self.says_start:
            self.says_start = False
            return Step([streams.start(self.after)], is_last=False, quiet_seconds=0)
        last = await self._last()  # asked before the events are, so that none of them can be missed
        query = EventsAfter(self.after, STREAM_PAGE, tenant_id=self.tenant_id, job_id=self.job_id)
        found = await self.store.read(query)
        if found:
            self.after = found[-1].id
        events = [streams.event(item.kind, answers.event(item), identifier=item.id) for item in found]
        is_last = last is not None and self.after >= last
        # On PostgreSQL an event may be held back for a while, and no change tells when it comes.
        quiet_seconds = QUIET_SECONDS if self.store.is_sqlite else SETTLE_MS / 1_000
        return Step([*events, streams.event("end", {})] if is_last else events, is_last, quiet_seconds)

    async def _last(self) -> int | None:
        """Return the last event of a job that has ended, None while more may come. Events may be held back (store/events.py)."""
        if self.job_id is None:
            return None
        job = await self.store.read(JobById(self.job_id, self.tenant_id))
        return await self.store.read(NewestEvent(self.job_id)) if JobState(job.state).is_terminal else None


@router.get("/jobs/{job_id}/events", response_model=Page[EventAnswer], responses=_EVENTS)
async def read_job_events(
    request: Request,
    principal: ReadsJobs,
    job_id: str,
    cursor: pages.Cursor = None,
    limit: pages.Limit = pages.LIMIT_DEFAULT,
    follow: Follow = False,
) -> Response:
    """Return what happened to a job, oldest first, or stream it until the job has ended."""
    store: Store = request.app.state.store
    await store.read(JobById(job_id, principal.tenant_id))
    after = pages.decode_number(cursor) or 0
    if streams.is_wanted(request, follow=follow):
        follower = _EventStream(store, streams.last_event_id(request) or after, principal.tenant_id, job_id)
        return streams.respond(request, principal, follower.step)
    return await _page(store, EventsAfter(after, limit, tenant_id=principal.tenant_id, job_id=job_id))


@router.get("/events", response_model=Page[EventAnswer], responses=_STREAM | problem_codes.responses("too_many_streams", "invalid_cursor"))
async def read_events(
    request: Request, principal: ReadsEvents, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT, follow: Follow = False
) -> Response:
    """Return the tenant's events, oldest first (everybody's for operators), or stream what happens from now on."""
    store: Store = request.app.state.store
    after = pages.decode_number(cursor)
    if streams.is_wanted(request, follow=follow):
        resumed = streams.last_event_id(request)
        start = resumed if resumed is not None else after
        begins = await store.read(NewestEvent()) if start is None else start
        follower = _EventStream(store, begins, principal.tenant_id, says_start=start is None)
        return streams.respond(request, principal, follower.step)
    return await _page(store, EventsAfter(after or 0, limit, tenant_id=principal.tenant_id))


async def _page(store: Store, query: EventsAfter) -> Response:
    found = await store.read(query)
    items = [answers.event(item) for item in found]
    return answers.response({"items": items, "next_cursor": pages.next_cursor(found, query.limit, lambda item: item.id)})
