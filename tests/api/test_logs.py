from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest

from terrace.sdk.streams import Event, parse
from tests.api.conftest import OpenApi
from tests.support.api import Agent, Api, Caller, problem_of


@dataclass
class Running:
    """A job of acme's that runs on a node."""

    api: Api
    ada: Caller
    agent: Agent
    job_id: str
    lease_id: str

    @classmethod
    async def started(cls, api: Api) -> Running:
        """Make everything and start the job."""
        agent = await api.node()
        await api.tenant()
        ada = await api.user("member")
        job = await ada.submit()
        running = cls(api, ada, agent, job["id"], "")
        await running.start()
        return running

    async def start(self) -> None:
        """Let the job's next attempt begin."""
        await self.api.schedule()
        self.lease_id = (await self.agent.leases())[-1]["lease_id"]
        await self.agent.see("started", lease=self.lease_id)
        await self.api.schedule()

    async def end(self, **data: Any) -> None:
        """Let the attempt end."""
        await self.agent.see("exited", lease=self.lease_id, data={"exit_code": 0} | data)
        await self.agent.see("gone", lease=self.lease_id)
        await self.api.schedule()

    async def write(self, offset: int, data: bytes) -> None:
        """Report output that need not be text."""
        encoded = base64.b64encode(data).decode()
        await self.agent.report([self.agent.observation("log", lease=self.lease_id, offset=offset, base64=encoded)])

    async def stream(self, query: str = "", **headers: str) -> list[Event]:
        """Follow a log that has ended."""
        answer = await self.ada.get(f"/v1/jobs/{self.job_id}/logs?follow=true{query}", headers=headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(parse(answer.text.splitlines()))


@pytest.fixture
async def running(api: Api) -> Running:
    """A running job."""
    return await Running.started(api)


def said(events: list[Event]) -> list[tuple[str, str | None, Any]]:
    """Return events in brief: kind, id, and text or state."""
    return [(event.kind, event.id, json.loads(event.data).get("text", json.loads(event.data).get("state"))) for event in events]


async def test_output_is_read_from_an_offset_on(running: Running) -> None:
    await running.agent.write(running.lease_id, 0, "epoch 1\n")
    await running.agent.write(running.lease_id, 8, "epoch 2\n")

    whole = await running.ada.get(f"/v1/jobs/{running.job_id}/logs")
    part = await running.ada.get(f"/v1/jobs/{running.job_id}/logs?offset=6")
    beyond = await running.ada.get(f"/v1/jobs/{running.job_id}/logs?offset=16")

    assert [answer.text for answer in (whole, part, beyond)] == ["epoch 1\nepoch 2\n", "1\nepoch 2\n", ""]
    assert {answer.headers["x-log-next-offset"] for answer in (whole, part, beyond)} == {"16"}
    assert (whole.headers["x-log-attempt"], whole.headers["x-log-complete"]) == ("1", "false")
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"


async def test_stream_of_an_ended_attempt_gives_all_output_and_its_end(running: Running) -> None:
    await running.agent.write(running.lease_id, 0, "epoch 1\nepoch 2\n")
    await running.end()

    events = await running.stream()

    assert said(events) == [("log", "16", "epoch 1\nepoch 2\n"), ("end", "16", "succeeded")]
    assert json.loads(events[0].data) == {"attempt": 1, "next_offset": 16, "text": "epoch 1\nepoch 2\n"}
    assert json.loads(events[1].data) == {"attempt": 1, "next_offset": 16, "state": "succeeded"}


@pytest.mark.parametrize(
    ("last", "rest"),
    [("6", "1\nepoch 2\n"), ("16", None), ("not a number", "epoch 1\nepoch 2\n"), ("9" * 30, "epoch 1\nepoch 2\n")],
    ids=["in the middle", "at the end", "not one of ours", "beyond any offset"],
)
async def test_stream_resumes_after_the_last_event(running: Running, last: str, rest: str | None) -> None:
    await running.agent.write(running.lease_id, 0, "epoch 1\nepoch 2\n")
    await running.end()

    events = await running.stream(**{"Last-Event-ID": last})

    assert [text for _, _, text in said(events)] == ([] if rest is None else [rest]) + ["succeeded"]


async def test_letter_that_is_cut_in_two_is_sent_whole(running: Running) -> None:
    data = "né".encode()
    await running.write(0, data[:2])
    await running.write(2, data[2:] + b"\xff!")
    await running.end()

    events = await running.stream()
    resumed = await running.stream(**{"Last-Event-ID": "1"})

    assert "".join(text for kind, _, text in said(events) if kind == "log") == "né\N{REPLACEMENT CHARACTER}!"
    assert "".join(text for kind, _, text in said(resumed) if kind == "log") == "é\N{REPLACEMENT CHARACTER}!"


async def test_output_that_imitates_a_stream_breaks_no_line_of_it(running: Running) -> None:
    forged = "x\n\nevent: end\ndata: {}\n\n\r\n\x00\u2028id: 999\n"
    await running.agent.write(running.lease_id, 0, forged)
    await running.end()

    answer = await running.ada.get(f"/v1/jobs/{running.job_id}/logs?follow=true")

    events = list(parse(line.removesuffix("\r") for line in answer.text.split("\n")))
    assert [text for kind, _, text in said(events) if kind == "log"] == [forged]
    assert [event.kind for event in events] == ["log", "end"]


async def test_missing_piece_holds_back_what_follows_until_the_attempt_has_ended(running: Running) -> None:
    await running.agent.write(running.lease_id, 0, "one ")
    await running.agent.write(running.lease_id, 8, "three")
    path = f"/v1/jobs/{running.job_id}/logs"

    held = (await running.ada.get(path)).text
    await running.agent.write(running.lease_id, 4, "two ")
    whole = (await running.ada.get(path)).text
    await running.agent.write(running.lease_id, 100, "late")
    await running.end()

    assert (held, whole, (await running.ada.get(path)).text) == ("one ", "one two three", "one two threelate")


async def test_piece_that_comes_twice_is_kept_once(running: Running) -> None:
    for _ in range(2):
        await running.agent.write(running.lease_id, 0, "once\n")

    assert (await running.ada.get(f"/v1/jobs/{running.job_id}/logs")).text == "once\n"
    assert (await running.api.rows())["log_chunk"] == 1


async def test_each_attempt_has_its_own_output(running: Running) -> None:
    await running.agent.write(running.lease_id, 0, "first\n")
    await running.end(exit_code=None, failure_class="node", message="gone")
    await running.start()
    await running.agent.write(running.lease_id, 0, "second\n")
    path = f"/v1/jobs/{running.job_id}/logs"

    newest, first, second = [(await running.ada.get(path + query)).text for query in ("", "?attempt=1", "?attempt=2")]
    ended = await running.stream("&attempt=1")

    assert (newest, first, second) == ("second\n", "first\n", "second\n")
    assert said(ended) == [("log", "6", "first\n"), ("end", "6", "running")]


async def test_job_that_never_ran_has_no_output_and_a_stream_that_ends(running: Running) -> None:
    job = await running.ada.submit()
    waiting = await running.ada.get(f"/v1/jobs/{job['id']}/logs")
    await running.ada.change("POST", f"/v1/jobs/{job['id']}/cancel")

    answer = await running.ada.get(f"/v1/jobs/{job['id']}/logs?follow=true")

    assert (waiting.text, waiting.headers["x-log-attempt"], waiting.headers["x-log-complete"]) == ("", "0", "false")
    assert said(list(parse(answer.text.splitlines()))) == [("end", None, "cancelled")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("attempt=2", (404, "attempt_not_found", "attempt"), id="an attempt that is not there"),
        pytest.param("attempt=0", (422, "invalid_request", "attempt"), id="attempt zero"),
        pytest.param("attempt=101", (422, "invalid_request", "attempt"), id="an attempt beyond any"),
        pytest.param("offset=-1", (422, "invalid_request", "offset"), id="a negative offset"),
        pytest.param(f"offset={1 << 51}", (422, "invalid_request", "offset"), id="an offset beyond any"),
        pytest.param("follow=perhaps", (422, "invalid_request", "follow"), id="a switch that is no switch"),
    ],
)
async def test_question_about_output_is_refused(running: Running, query: str, expected: tuple[int, str, str]) -> None:
    answer = await running.ada.get(f"/v1/jobs/{running.job_id}/logs?{query}")

    assert problem_of(answer)[:3] == expected


async def test_output_of_an_attempt_is_capped_and_says_so(open_api: OpenApi) -> None:
    running = await Running.started(await open_api(log_bytes_per_attempt_maximum=10))

    await running.agent.write(running.lease_id, 0, "0123456")
    await running.agent.write(running.lease_id, 7, "789abcdef")
    await running.agent.write(running.lease_id, 16, "dropped")

    text = (await running.ada.get(f"/v1/jobs/{running.job_id}/logs")).text
    assert text.startswith("0123456789\n[terrace: the output of this attempt has reached its limit")
    assert "abc" not in text
    assert "dropped\n" not in text.splitlines()[-1]
