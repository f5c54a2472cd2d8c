"""The application behind a real server on loopback, for streams that do not end by themselves."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from api.app import create_app
from api.settings import ApiSettings
from store.engine import Store
from terrace.sdk.streams import Event
from tests.support.waiting import wait_until

START_SECONDS_MAXIMUM = 30
STOP_SECONDS_MAXIMUM = 30
READ_SECONDS_MAXIMUM = 60.0


@contextmanager
def served(store: Store, state_dir: Path, **settings: Any) -> Iterator[str]:
    """Serve a replica over `store` in a thread; yield its address."""
    app = create_app(store, ApiSettings(state_dir, **settings))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=STOP_SECONDS_MAXIMUM))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, seconds=START_SECONDS_MAXIMUM)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        app.state.is_stopping = True
        server.should_exit = True
        thread.join(STOP_SECONDS_MAXIMUM)
        listener.close()
        assert not thread.is_alive()


@dataclass
class Follower:
    """An open stream. `comments` counts the lines that only keep it alive."""

    answer: httpx.Response
    lines: AsyncIterator[str]
    comments: int = 0

    async def next(self) -> Event | None:
        """Return the next event, None when the stream is over."""
        kind, data, identifier = "message", "", None
        async for line in self.lines:
            if not line and data:
                return Event(kind, data, identifier)
            name, _, value = line.partition(": ")
            self.comments += line.startswith(":")
            kind = value if name == "event" else kind
            data = value if name == "data" else data
            identifier = value if name == "id" else identifier
        return None

    async def start(self) -> str:
        """Return the id that the stream begins with, which comes with no event."""
        said = [await anext(self.lines), await anext(self.lines)]
        assert said[0].startswith("id: ")
        assert said[1] == ""
        return said[0].removeprefix("id: ")

    async def rest(self) -> list[Event]:
        """Return all events that are still to come."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found

    async def comment(self) -> None:
        """Wait for a line that only keeps the stream alive."""
        async for line in self.lines:
            if line.startswith(":"):
                return
        raise AssertionError("the stream ended without a comment")


@asynccontextmanager
async def following(url: str, bearer: str | None, path: str, **headers: str) -> AsyncIterator[Follower]:
    """Open a stream."""
    sent = {"Authorization": f"Bearer {bearer}", "Accept": "text/event-stream", **headers}
    timeout = httpx.Timeout(READ_SECONDS_MAXIMUM)
    async with httpx.AsyncClient(base_url=url, headers=sent, timeout=timeout) as http, http.stream("GET", path) as answer:
        yield Follower(answer, answer.aiter_lines())
