"""The outermost layer of the application: request identifiers, the body limit, headers of every answer, and what is counted.

One pure ASGI middleware, because three wrapped ones would cost a tenth of a submit each. It knows no route; labels are route templates, so
their number is bounded. Archives have a limit of their own and are let through. What no route could take is refused here: a null character
in the path or the query, which no row can hold.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.problems import UnreadableError

REQUEST_ID_BYTES = 8
LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LENGTH_DIGITS_MAXIMUM = 18
UNLIMITED_PREFIX = "/v1/archives/"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Of every answer: nothing here is to be guessed at, or kept by a browser.
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Measures:
    """The API's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("terrace_api_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "terrace_api_request_seconds",
            "Time to the end of the answer.",
            ("method", "route"),
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge("terrace_api_writer_queue", "Changes that wait for the database's writer.", registry=self.registry)
        self.streams = Gauge("terrace_api_streams", "Event streams open now.", registry=self.registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # labels() costs more than the counting
        self.jobs = Counter("terrace_api_jobs_accepted", "Jobs accepted.", registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = self._children.get((method, route, status))
        if known is None:
            known = (self.requests.labels(method, route, str(status)), self.seconds.labels(method, route))
            self._children[method, route, status] = known
        known[0].inc()
        known[1].observe(seconds)


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, measures: Measures, body_bytes_maximum: int) -> None:
        self._app = app
        self._measures = measures
        self._maximum = body_bytes_maximum

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope["terrace.request_id"] = request_id
        status, has_begun = 500, False

        async def send_marked(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                present = {name.lower() for name, _ in message["headers"]}
                added = [header for header in _HEADERS if header[0] not in present]
                message["headers"] = [*message["headers"], *added, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                problem = problems.of_unreadable(refusal, request_id=request_id)
                await problems.response(problem, {"Connection": "close"})(scope, receive, send_marked)
            else:
                await self._app(scope, self._limited(scope, headers, receive), send_marked)
        except Exception as error:
            problem = problems.of_defect(error, method=scope["method"], path=scope["path"], request_id=request_id)
            if has_begun:
                raise  # nothing but the end of the connection can tell now
            await problems.response(problem)(scope, receive, send_marked)
        finally:
            self._count(scope, status, time.perf_counter() - began)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> UnreadableError | None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return UnreadableError(400, "malformed_request", "the path or the query has a null character", field="path")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > LENGTH_DIGITS_MAXIMUM:
            return UnreadableError(400, "malformed_request", "Content-Length: not a number", field="Content-Length")
        if int(length) > self._maximum and not scope["path"].startswith(UNLIMITED_PREFIX):
            return _too_large(self._maximum)
        return None

    def _limited(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Return `receive`, counting where the size is not known beforehand."""
        is_known = b"content-length" in headers and b"transfer-encoding" not in headers
        if is_known or scope["path"].startswith(UNLIMITED_PREFIX):
            return receive
        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._maximum:
                raise _too_large(self._maximum)
            return message

        return receive_limited

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        template = getattr(route, "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._measures.count(method, template, status, seconds)


def _too_large(limit_bytes: int) -> UnreadableError:
    return UnreadableError(413, "body_too_large", f"the body is larger than body_bytes_maximum = {limit_bytes} bytes", limit=limit_bytes)


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return secrets.token_hex(REQUEST_ID_BYTES)
