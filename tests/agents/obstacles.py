"""What stands in an agent's way: a line that is cut, a service that talks nonsense, a disk that refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from agents.spool import Spool


class Wire(httpx.AsyncBaseTransport):
    """The line from the agent to the service.

    `is_down`: nothing arrives. `lost_replies`: so many batches arrive and are not answered. `nonsense`: so many answers are somebody
    else's. `is_amnesiac`: the service has forgotten every lease. `is_without_archives`: it has no archive any more.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.is_down = self.is_amnesiac = self.is_without_archives = False
        self.lost_replies = self.nonsense = 0
        self.assignments_asked = 0
        self.batches: list[bytes] = []

    async def is_sane(self) -> bool:
        """True when all the nonsense has been said."""
        return self.nonsense == 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, or not."""
        self.assignments_asked += request.url.path.endswith("/assignments")
        if self.is_down:
            raise httpx.ConnectError("the line is cut", request=request)
        if self.nonsense:
            self.nonsense -= 1
            return httpx.Response(200, html="<h1>Welcome to the hotel's network</h1>", request=request)
        if self.is_without_archives and "/archives/" in request.url.path:
            return httpx.Response(404, json={"code": "not_found"}, request=request)
        if self.is_amnesiac and request.url.path.endswith("/assignments"):
            return httpx.Response(200, json={"cursor": "nothing", "items": []}, request=request)
        answer = await self._inner.handle_async_request(request)
        if request.url.path.endswith("/observations") and request.content != b"":
            self.batches.append(request.content)
            if self.lost_replies:
                self.lost_replies -= 1
                raise httpx.ReadError("the line was cut before the answer", request=request)
        return answer


@contextmanager
def refusing(spool: Spool) -> Iterator[None]:
    """Let the spool's disk refuse every write, as one does that is full to the last byte or that the machine has made read-only."""
    spool._connection.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        spool._connection.execute("PRAGMA query_only = OFF")


@contextmanager
def full(spool: Spool) -> Iterator[None]:
    """Let the spool's disk be full: its file cannot grow by a page."""
    connection: sqlite3.Connection = spool._connection
    (before,) = connection.execute("PRAGMA max_page_count").fetchone()
    connection.execute("PRAGMA max_page_count = 1")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA max_page_count = {before}")
