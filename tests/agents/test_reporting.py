"""How reports leave: batches that shrink around a refused report, a pace that follows failures, and links that say what a failure means."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.device_selection import DeviceSettings
from agents.link import ArchiveDamagedError, Link, LinkDownError, LinkRefusedError
from agents.reporting import Backoff, Reporter
from agents.settings import AgentSettings
from agents.spool import Spool

NOW = 1_800_000_000_000
ARCHIVE = b"an archive"
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Service:
    """Answers as it is told: `refuses` names what makes a batch invalid, `status` what every answer is."""

    def __init__(self) -> None:
        self.refuses = ""
        self.status = 200
        self.body: bytes | None = None
        self.batches: list[list[dict[str, Any]]] = []
        self.taken: list[str] = []
        self.bearers: set[str] = set()
        self.has_answered = asyncio.Event()

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.bearers.add(request.headers["Authorization"])
        if self.body is not None or self.status != 200:
            return httpx.Response(self.status, stream=httpx.ByteStream(self.body or b"no"), request=request)
        batch = json.loads(request.content)["observations"]
        self.batches.append(batch)
        if self.refuses and any(self.refuses in json.dumps(report) for report in batch):
            return httpx.Response(422, text="observations[0].data: no", request=request)
        self.taken += [report["kind"] for report in batch]
        self.has_answered.set()
        accepted = max((report["agent_seq"] for report in batch), default=-1)
        return httpx.Response(200, json={"accepted_through_seq": accepted}, request=request)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    devices = DeviceSettings(node_name="node-1")
    return AgentSettings(
        api_url="http://service.test",
        token="secret",
        state_dir=tmp_path,
        job_python="-",
        devices=devices,
        archive_bytes_maximum=1_000,
        heartbeat_ms=3_600_000,
    )


@pytest.fixture
async def link(service: Service, settings: AgentSettings) -> AsyncIterator[Link]:
    opened = Link(settings, transport=httpx.MockTransport(service.answer))
    yield opened
    await opened.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.db", boot_id="boot-one", bytes_maximum=1_000_000)


@pytest.fixture
def reporter(link: Link, spool: Spool, settings: AgentSettings) -> Reporter:
    return Reporter(link, spool, settings, boot_id="boot-one")


def add(spool: Spool, *kinds: str, **data: Any) -> None:
    for kind in kinds:
        spool.add(kind, "lea_a", data, observed_at_ms=NOW)


def waiting(spool: Spool) -> list[str]:
    return [report.kind for report in spool.oldest(reports_maximum=100, bytes_maximum=1_000_000)]


async def test_accepted_reports_are_forgotten_and_the_next_batch_is_a_heartbeat(service: Service, reporter: Reporter, spool: Spool) -> None:
    add(spool, "started", "exited")

    await reporter.send_once()
    await reporter.send_once()

    assert waiting(spool) == []
    assert [[report["kind"] for report in batch] for batch in service.batches] == [["started", "exited"], []]
    assert service.bearers == {"Bearer secret"}


async def test_refused_report_is_dropped_alone(service: Service, reporter: Reporter, spool: Spool) -> None:
    add(spool, "started")
    add(spool, "exited", message="poison")
    add(spool, "gone")
    service.refuses = "poison"

    await reporter.send_once()

    assert (service.taken, waiting(spool)) == (["started", "gone"], [])


@pytest.mark.parametrize(
    ("at_ms", "data"),
    [
        pytest.param(10**17, {}, id="a time that no calendar holds"),
        pytest.param(NOW, {"message": "\ud800"}, id="a text that cannot be encoded"),
    ],
)
async def test_report_that_cannot_be_put_on_the_wire_holds_nothing_up(
    at_ms: int, data: dict[str, str], service: Service, reporter: Reporter, spool: Spool
) -> None:
    spool.add("exited", "lea_a", data, observed_at_ms=at_ms)
    add(spool, "gone")

    await reporter.send_once()

    assert (service.taken, waiting(spool)) == (["gone"], [])


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
async def test_failure_that_passes_keeps_the_reports(status: int, service: Service, reporter: Reporter, spool: Spool) -> None:
    add(spool, "started")
    service.status = status

    with pytest.raises(LinkDownError, match=str(status)):
        await reporter.send_once()

    assert waiting(spool) == ["started"]


async def test_service_that_takes_nothing_is_no_success(service: Service, reporter: Reporter, spool: Spool) -> None:
    add(spool, "started")
    service.body = b'{"accepted_through_seq": -1}'

    with pytest.raises(LinkDownError, match="took nothing"):
        await reporter.send_once()

    assert waiting(spool) == ["started"]


async def test_flush_gives_up_in_time_and_says_that_something_stays(service: Service, reporter: Reporter, spool: Spool) -> None:
    add(spool, "started")
    service.status = 503

    assert not await reporter.flush(0.05)
    service.status = 200
    assert await reporter.flush(5)


async def test_new_report_does_not_wait_for_the_heartbeat(service: Service, reporter: Reporter, spool: Spool) -> None:
    task = asyncio.create_task(reporter.run())
    await asyncio.wait_for(service.has_answered.wait(), 60)
    service.has_answered.clear()
    add(spool, "started")
    reporter.wake()
    await asyncio.wait_for(service.has_answered.wait(), 60)  # the heartbeat would come after an hour
    task.cancel()

    assert service.taken == ["started"]


async def test_waking_without_a_report_and_the_end_of_the_reports_send_no_empty_batch(
    service: Service, reporter: Reporter, spool: Spool
) -> None:
    task = asyncio.create_task(reporter.run())
    for kind in ("started", "exited"):
        await asyncio.wait_for(service.has_answered.wait(), 60)
        service.has_answered.clear()
        for _ in range(50):
            reporter.wake()
            await asyncio.to_thread(spool.is_empty)
        add(spool, kind)
        reporter.wake()
    await asyncio.wait_for(service.has_answered.wait(), 60)
    task.cancel()

    assert [[report["kind"] for report in batch] for batch in service.batches] == [[], ["started"], ["exited"]]


async def test_reporter_that_is_woken_and_cancelled_at_once_ends(service: Service, reporter: Reporter, spool: Spool) -> None:
    task = asyncio.create_task(reporter.run())
    await asyncio.wait_for(service.has_answered.wait(), 60)
    for _ in range(50):
        await asyncio.to_thread(spool.is_empty)

    reporter.wake()
    await asyncio.sleep(0)  # the waiter is told, and has not gone on yet
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)

    assert done == {task}


def test_backoff_doubles_up_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(100, 500)
    waits = [backoff.failed() for _ in range(4)]
    backoff.succeeded()

    assert (waits, backoff.failed()) == ([0.1, 0.2, 0.4, 0.5], 0.1)


async def test_archive_is_fetched_to_its_place(service: Service, link: Link, tmp_path: Path) -> None:
    service.body = ARCHIVE

    await link.fetch_archive("ten_a", SHA256, tmp_path / "a.tar.gz")

    assert (tmp_path / "a.tar.gz").read_bytes() == ARCHIVE


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        pytest.param(b"another", 200, ArchiveDamagedError, id="another archive"),
        pytest.param(b"x" * 1_001, 200, LinkRefusedError, id="too large"),
        pytest.param(b"", 500, LinkDownError, id="a service in trouble"),
        pytest.param(b"", 410, LinkRefusedError, id="an archive that is gone for good"),
    ],
)
async def test_archive_that_cannot_be_had_is_told_by_what_would_help(
    body: bytes, status: int, error: type[Exception], service: Service, link: Link, tmp_path: Path
) -> None:
    service.body, service.status = body, status

    with pytest.raises(error) as raised:
        await link.fetch_archive("ten_a", SHA256, tmp_path / "a.tar.gz")

    assert raised.type is error


@pytest.mark.parametrize("ask", [lambda link: link.assignments(None), lambda link: link.assignments("cursor")], ids=["first", "next"])
async def test_answer_that_makes_no_sense_passes(ask: Callable[[Link], Any], service: Service, link: Link) -> None:
    service.body = b"<h1>Welcome</h1>"

    with pytest.raises(LinkDownError, match="makes no sense"):
        await ask(link)
