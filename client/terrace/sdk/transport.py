"""HTTP as the SDK uses it: one connection pool, named timeouts, bounded retries, problems as exceptions.

Owns: when a request may be sent again and under which Idempotency-Key. A creating post gets its key once per call, so a retry whose first
answer was lost returns that answer instead of creating twice. Does not own: routes or models (jobs.py, operations.py), or resuming streams
(streams.py).
"""

from __future__ import annotations

import ipaddress
import random
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from terrace.models.common import Page, Problem
from terrace.sdk.config import Config
from terrace.sdk.errors import PASSING_STATUSES, ApiError, InputError, UnreachableError
from terrace.sdk.version import client_version

A = TypeVar("A", bound=BaseModel)

CONNECT_SECONDS_MAXIMUM = 5.0
ANSWER_SECONDS_MAXIMUM = 30.0
UPLOAD_SECONDS_MAXIMUM = 600.0
STREAM_SILENCE_SECONDS_MAXIMUM = 60.0  # the service sends a comment every 15 s
TRIES_MAXIMUM = 5
RETRY_SECONDS_FIRST = 0.2
RETRY_SECONDS_MAXIMUM = 10.0  # a service that asks for more patience is not asked again
RETRY_AFTER_DIGITS_MAXIMUM = 9
PAGES_MAXIMUM = 10_000
PAGE_ITEMS = 500
CREATED = 201
QUIET_TIMEOUT = httpx.Timeout(ANSWER_SECONDS_MAXIMUM, connect=CONNECT_SECONDS_MAXIMUM)


class Transport:
    """Speaks to one service with one key. Usable from several threads; close it, or use the client as a context manager."""

    def __init__(
        self,
        config: Config,
        *,
        carrier: httpx.BaseTransport | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.url = config.url
        self.pause = pause if pause is not None else threading.Event().wait
        self._http = httpx.Client(
            base_url=config.url,
            headers={"Authorization": f"Bearer {config.key}", "User-Agent": f"terrace/{client_version()}"},
            timeout=QUIET_TIMEOUT,
            transport=carrier,
            verify=_trusted(config.url),
            trust_env=not _is_loopback(config.url),  # a proxy of the environment does not know this machine's loopback
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(self, path: str, kind: type[A], **query: Any) -> A:
        """Return the answer to a read."""
        return self._parse(self.send("GET", path, params=_present(query)), kind)

    def get_text(self, path: str, *, accept: str = "text/plain", **query: Any) -> httpx.Response:
        """Return a read's answer as it came, for text and its headers."""
        return self.send("GET", path, params=_present(query), headers={"Accept": accept})

    def create(self, path: str, body: BaseModel, kind: type[A]) -> A:
        """Post a body that creates something, exactly once however often it must be sent."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._parse(self.send("POST", path, json=_fields(body), headers=headers), kind)

    def act(self, method: str, path: str, kind: type[A], body: BaseModel | None = None) -> A:
        """Send a change that may be repeated without harm (PUT, PATCH, DELETE, cancel)."""
        return self._parse(self.send(method, path, json=None if body is None else _fields(body)), kind)

    def items(self, path: str, kind: type[A], *, maximum: int | None = None, **query: Any) -> Iterator[A]:
        """Yield a listing's items through all its pages, at most `maximum`."""
        left = maximum
        cursor: str | None = None
        for _ in range(PAGES_MAXIMUM):
            limit = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = self.get(path, Page[kind], cursor=cursor, limit=limit, **query)  # type: ignore[valid-type]
            yield from page.items
            cursor = page.next_cursor
            left = None if left is None else left - len(page.items)
            if cursor is None or (left is not None and left <= 0):
                return

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request until it is answered, at most `TRIES_MAXIMUM` times; ApiError for a refusal, UnreachableError for none."""
        for tried in range(1, TRIES_MAXIMUM + 1):
            try:
                answer = self._http.request(method, path, **options)
            except httpx.RequestError as error:
                if tried == TRIES_MAXIMUM:
                    raise unreachable(self.url, error) from error
                self.pause(backoff_seconds(tried))
                continue
            seconds = retry_after_seconds(answer, tried)
            if answer.status_code not in PASSING_STATUSES or tried == TRIES_MAXIMUM or seconds > RETRY_SECONDS_MAXIMUM:
                break
            self.pause(seconds)
        if answer.is_error:
            raise api_error(answer)
        return answer

    @contextmanager
    def stream(self, path: str, *, params: Mapping[str, Any], last_event_id: str | None) -> Iterator[httpx.Response]:
        """Open a server-sent event stream once; the caller resumes. ApiError for a refusal."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(STREAM_SILENCE_SECONDS_MAXIMUM, connect=CONNECT_SECONDS_MAXIMUM)
        with self._http.stream("GET", path, params=_present(params), headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
                raise api_error(answer)
            yield answer

    def _parse(self, answer: httpx.Response, kind: type[A]) -> A:
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise UnreachableError(f"{self.url} answered something else than Terrace does: {error.errors()[0]['msg']}") from error


def path_of(*segments: str) -> str:
    """Return `/v1/jobs/ID/logs` for its segments. What a caller gave names one segment, whatever characters it holds.

    A slash is refused, because servers decode it before they look for the route.
    """
    for segment in segments:
        if segment in ("", ".", "..") or "/" in segment:
            raise InputError("id", f"{segment!r} names nothing")
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def _trusted(url: str) -> ssl.SSLContext | bool:
    """Return whose certificates to believe. Without TLS nobody's, because loading them takes longer than a request."""
    return True if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def backoff_seconds(tried: int) -> float:
    """Return how long to wait after the `tried`th failure: doubling, bounded, spread so that clients do not return together."""
    longest = min(RETRY_SECONDS_FIRST * float(1 << (tried - 1)), RETRY_SECONDS_MAXIMUM)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  spreads clients, decides nothing


def retry_after_seconds(answer: httpx.Response, tried: int) -> float:
    """Return how long the service asks to wait; our own backoff when it does not say."""
    sent = answer.headers.get("retry-after", "")
    is_number = sent.isascii() and sent.isdigit() and len(sent) <= RETRY_AFTER_DIGITS_MAXIMUM
    return float(sent) if is_number else backoff_seconds(tried)


def api_error(answer: httpx.Response) -> ApiError:
    """Return a refusal as an exception, also when what answered is not Terrace (a proxy, a wrong port)."""
    try:
        return ApiError(Problem.model_validate_json(answer.content))
    except ValidationError:
        text = answer.text.strip()[:200]
        problem = Problem(title=answer.reason_phrase or "error", status=answer.status_code, detail=text or None, code="not_a_problem")
        return ApiError(problem)


def unreachable(url: str, error: Exception) -> UnreachableError:
    """Return the exception for a service that does not answer."""
    return UnreachableError(f"{url} does not answer: {error or type(error).__name__}")


def _fields(body: BaseModel) -> Any:
    return body.model_dump(mode="json", exclude_unset=True)


def _present(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
