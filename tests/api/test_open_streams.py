"""Streams that stay open, behind a real server: what arrives while one waits, how many there may be, and what ends them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest

from store.engine import Store
from store.identity import SetTenant
from tests.support.api import Agent, Api, Caller, problem_of
from tests.support.api_server import Follower, following, served
from tests.support.service import BIN, free_port
from tests.support.waiting import wait_until

Serve = Callable[..., str]
EVENTS = "/v1/events?follow=true"
START_SECONDS_MAXIMUM = 60
STOP_SECONDS_MAXIMUM = 30


@pytest.fixture
def serve(store: Store, tmp_path: Path) -> Iterator[Serve]:
    """Serve a replica with settings of the test's own: `url = serve(heartbeat_seconds=0.1)`."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(served(store, tmp_path, **settings))


async def submitter(api: Api) -> Caller:
    """Return a member of acme."""
    await api.tenant()
    return await api.user("member")


async def test_output_arrives_while_the_job_runs(api: Api, serve: Serve) -> None:
    agent: Agent = await api.node()
    ada = await submitter(api)
    job = await ada.submit()

    async with following(serve(), ada.bearer, f"/v1/jobs/{job['id']}/logs") as log:
        await api.schedule()
        (lease,) = await agent.leases()
        await agent.see("started", lease=lease["lease_id"])
        await api.schedule()
        await agent.write(lease["lease_id"], 0, "one\n")
        first = await log.next()
        await agent.write(lease["lease_id"], 4, "two\n")
        second = await log.next()
        await agent.see("exited", "gone", lease=lease["lease_id"], data={"exit_code": 0})
        await api.schedule()
        rest = await log.rest()

    assert [json.loads(event.data)["text"] for event in (first, second) if event is not None] == ["one\n", "two\n"]
    assert [(event.kind, json.loads(event.data)["state"]) for event in rest] == [("end", "succeeded")]


async def test_stream_of_a_job_ends_when_it_does(api: Api, serve: Serve) -> None:
    ada = await submitter(api)
    job = await ada.submit()

    async with following(serve(), ada.bearer, f"/v1/jobs/{job['id']}/events") as events:
        first = await events.next()
        await ada.change("POST", f"/v1/jobs/{job['id']}/cancel")
        rest = await events.rest()

    assert first is not None
    assert [event.kind for event in (first, *rest)] == ["job_submitted", "job_cancel_requested", "job_cancelled", "end"]


async def test_stream_of_a_tenant_begins_now_or_where_one_left_off(api: Api, serve: Serve) -> None:
    ada = await submitter(api)
    old = await ada.submit()
    url = serve()

    async with following(url, ada.bearer, EVENTS) as from_now, following(url, ada.bearer, EVENTS, **{"Last-Event-ID": "0"}) as from_then:
        while (earlier := await from_then.next()) is not None and earlier.kind != "job_submitted":
            pass
        new = await ada.submit()
        told = [await from_now.next(), await from_then.next()]

    assert earlier is not None
    assert json.loads(earlier.data)["job_id"] == old["id"]
    assert [json.loads(event.data)["job_id"] for event in told if event is not None] == [new["id"]] * 2


async def test_stream_of_a_tenant_says_where_it_begins_before_anything_happens(api: Api, serve: Serve) -> None:
    ada = await submitter(api)
    await ada.submit()
    url = serve()

    async with following(url, ada.bearer, EVENTS) as opened:
        start = await opened.start()
    new = await ada.submit()  # while nobody listens
    async with following(url, ada.bearer, EVENTS, **{"Last-Event-ID": start}) as reopened:
        event = await reopened.next()

    assert event is not None
    assert (event.kind, json.loads(event.data)["job_id"]) == ("job_submitted", new["id"])


async def test_quiet_stream_is_kept_alive(api: Api, serve: Serve) -> None:
    ada = await submitter(api)

    async with following(serve(heartbeat_seconds=0.05), ada.bearer, EVENTS) as events:
        await events.comment()
        await events.comment()
        job = await ada.submit()
        event = await events.next()

    assert event is not None
    assert json.loads(event.data)["job_id"] == job["id"]


async def test_many_followers_get_every_event(api: Api, serve: Serve) -> None:
    ada = await submitter(api)
    url = serve()

    async with AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(following(url, ada.bearer, EVENTS)) for _ in range(50)]
        jobs = [(await ada.submit())["id"] for _ in range(3)]
        heard = await asyncio.gather(*(_next_jobs(follower, len(jobs)) for follower in followers))

    assert heard == [jobs] * 50


async def _next_jobs(follower: Follower, count: int) -> list[str]:
    events = [await follower.next() for _ in range(count)]
    return [json.loads(event.data)["job_id"] for event in events if event is not None]


@pytest.mark.parametrize("name", ["streams_maximum", "streams_per_tenant_maximum"])
async def test_streams_over_a_limit_are_refused_until_one_ends(api: Api, serve: Serve, name: str) -> None:
    ada = await submitter(api)
    await api.tenant("globex")
    eve = await api.user("member", tenant="globex")
    url = serve(**{name: 2})

    async with following(url, ada.bearer, EVENTS), AsyncExitStack() as stack:
        await stack.enter_async_context(following(url, ada.bearer, EVENTS))
        async with following(url, ada.bearer, EVENTS) as third, following(url, eve.bearer, EVENTS) as other:
            await third.answer.aread()
            statuses = third.answer.status_code, other.answer.status_code
        await stack.aclose()
        again = await _opened(url, ada)

    assert statuses == (429, 429 if name == "streams_maximum" else 200)
    assert problem_of(third.answer)[:2] == (429, "too_many_streams")
    assert (third.answer.json()["data"]["limit"], third.answer.headers["retry-after"]) == (2, "5")
    assert again


async def _opened(url: str, caller: Caller) -> bool:
    """Tell whether a stream can be opened before long: a place is free once the server has seen that its reader left."""
    for _ in range(600):
        async with following(url, caller.bearer, EVENTS) as stream:
            if stream.answer.status_code == 200:
                return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.parametrize("reason", ["revoked", "suspended"])
async def test_stream_ends_when_its_key_no_longer_works(api: Api, store: Store, serve: Serve, reason: str) -> None:
    ada = await submitter(api)

    async with following(serve(key_cache_seconds=0), ada.bearer, EVENTS) as events:
        if reason == "revoked":
            await api.operator.change("DELETE", f"/v1/keys/{str(ada.bearer).partition('.')[0]}")
        else:
            await store.run(SetTenant("acme", None, True, 0))
        rest = await events.rest()

    assert {event.kind for event in rest} <= {"tenant_changed"}  # the word of the suspension itself may come before the end


async def test_stream_ends_after_its_time_and_can_be_resumed(api: Api, serve: Serve) -> None:
    ada = await submitter(api)
    url = serve(stream_seconds_maximum=0.2)

    async with following(url, ada.bearer, EVENTS) as events:
        rest = await events.rest()

    assert events.answer.status_code == 200
    assert rest == []


async def test_reader_that_no_longer_reads_loses_its_place(api: Api, serve: Serve) -> None:
    agent: Agent = await api.node()
    ada = await submitter(api)
    job = await ada.submit()
    await api.schedule()
    (lease,) = await agent.leases()
    for piece in range(160):
        await agent.write(lease["lease_id"], piece * 60_000, "x" * 60_000)
    url = serve(stream_send_seconds_maximum=0.2)

    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as reader:
        reader.sendall(f"GET /v1/jobs/{job['id']}/logs?follow=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ada.bearer}\r\n\r\n".encode())
        opened = await asyncio.to_thread(wait_until, lambda: _open(url) == 1, seconds=30)
        closed = await asyncio.to_thread(wait_until, lambda: _open(url) == 0, seconds=30)

    assert opened
    assert closed


def _open(url: str) -> int:
    text = httpx.get(f"{url}/metrics").text
    return int(float(next(line for line in text.splitlines() if line.startswith("terrace_api_streams ")).split()[1]))


async def test_service_that_is_told_to_stop_ends_its_streams_and_polls_at_once(api: Api, tmp_path: Path) -> None:
    agent = await api.node()
    ada = await submitter(api)
    job = await ada.submit()
    port = free_port()
    command = [str(BIN / "terraced"), "api", f"--port={port}", f"--database-url={api.store.url}", f"--state-dir={tmp_path}"]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        await asyncio.to_thread(wait_until, lambda: _is_up(url), seconds=START_SECONDS_MAXIMUM)
        path = f"/v1/nodes/{agent.name}/assignments"
        cursor = (await agent.fetch(path))["cursor"]
        async with (
            following(url, ada.bearer, EVENTS) as events,
            following(url, ada.bearer, f"/v1/jobs/{job['id']}/logs?follow=true") as log,
            httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {agent.bearer}"}, timeout=60) as http,
        ):
            poll = asyncio.create_task(http.get(path, params={"cursor": cursor, "wait_seconds": 30}))
            await asyncio.to_thread(wait_until, lambda: _open(url) == 2, seconds=30)
            process.send_signal(signal.SIGTERM)
            ends = [await events.rest(), await log.rest()]
            polled = await poll
        status = await asyncio.wait_for(process.wait(), STOP_SECONDS_MAXIMUM)
    finally:
        if process.returncode is None:
            process.kill()

    assert ends == [[], []]
    assert (polled.status_code, polled.json()["cursor"]) == (200, cursor)
    assert status in (0, -signal.SIGTERM)  # the server ends itself by the signal that it was told to stop with


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
