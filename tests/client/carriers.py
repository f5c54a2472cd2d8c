"""Networks that misbehave, each named for its sin. They stand before the real service, or alone where nothing is to arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx

import terrace

NO_PAUSE = 0.0


@dataclass
class Recorder(httpx.BaseTransport):
    """Hands everything on and remembers what was asked."""

    inner: httpx.BaseTransport = field(default_factory=httpx.HTTPTransport)
    asked: list[httpx.Request] = field(default_factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer(request)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Return what the network gives back."""
        return self.inner.handle_request(request)

    def close(self) -> None:
        self.inner.close()


@dataclass
class LosesTheFirstAnswer(Recorder):
    """The first request arrives and is done; its answer does not come back."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        answer = self.inner.handle_request(request)
        if len(self.asked) == 1:
            answer.read()
            answer.close()
            raise httpx.ReadError("the connection was cut before the answer", request=request)
        return answer


@dataclass
class NeverConnects(Recorder):
    """Nothing arrives."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)


@dataclass
class BusyAtFirst(Recorder):
    """Answers `times` times that it is busy, with or without saying for how long."""

    status: int = 503
    retry_after: str | None = None
    times: int = 2

    def answer(self, request: httpx.Request) -> httpx.Response:
        if len(self.asked) <= self.times:
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return httpx.Response(self.status, json={"title": "busy", "status": self.status, "code": "busy"}, headers=headers)
        return self.inner.handle_request(request)


@dataclass
class AnswersSomethingElse(Recorder):
    """Not Terrace at all: a page of some other server."""

    status: int = 200

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(self.status, text="<html>It works!</html>", headers={"Content-Type": "text/html"})


@dataclass
class CutsStreams(Recorder):
    """Streams break off after `events` whole events and a half one, as often as they are opened, until `times` times."""

    events: int = 1
    times: int = 1_000
    cuts: int = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        answer = self.inner.handle_request(request)
        if "text/event-stream" not in answer.headers.get("content-type", "") or self.cuts >= self.times:
            return answer
        self.cuts += 1
        assert isinstance(answer.stream, httpx.SyncByteStream)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=_Cut(answer.stream, self.events))


@dataclass
class SpeaksAtLast(Recorder):
    """A service that has nothing to tell: it ends each stream after a comment, `silent` times, and then says something."""

    silent: int = 1
    says: bytes = b""
    opening: bytes = b""

    def answer(self, request: httpx.Request) -> httpx.Response:
        said = b": ping\n\n" if len(self.asked) <= self.silent else self.says
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=self.opening + said)


class _Cut(httpx.SyncByteStream):
    def __init__(self, whole: httpx.SyncByteStream, events: int) -> None:
        self._whole, self._left = whole, events

    def __iter__(self) -> Iterator[bytes]:
        for block in self._whole:
            for line in block.splitlines(keepends=True):
                if self._left == 0 and line.startswith(b"data:"):
                    yield line[: len(line) // 2]
                    raise httpx.ReadError("the stream was cut")
                yield line
                if line in (b"\n", b"\r\n"):
                    self._left -= 1

    def close(self) -> None:
        self._whole.close()


def impatient(client: terrace.Client) -> list[float]:
    """Let a client's pauses last no time, and return the list in which it notes how long they would have been."""
    pauses: list[float] = []
    client._wire.pause = pauses.append
    return pauses
