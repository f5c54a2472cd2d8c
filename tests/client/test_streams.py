"""Streams: how lines become events, and that a stream that is cut goes on where it was, each event once."""

from __future__ import annotations

import itertools
import threading

import pytest

import terrace
from executors.fake import Script
from terrace.models.jobs import JobSpec
from terrace.sdk import streams
from terrace.sdk.config import Config
from terrace.sdk.streams import Event
from terrace.sdk.transport import Transport
from tests.client import carriers
from tests.client.service import Service
from tests.support.waiting import wait_until

TRUE = JobSpec(entrypoint=["true"], gpus=1)


def events_of(*blocks: bytes) -> list[Event]:
    return list(streams.parse(streams.split_lines(blocks)))


@pytest.mark.parametrize(
    ("blocks", "events"),
    [
        ([b"id: 1\nevent: log\ndata: x\n\n"], [Event("log", "x", "1")]),
        ([b"data: a\r\ndata: b\r\n\r\n"], [Event("message", "a\nb", None)]),
        ([b": ping\n\ndata:x\n\n"], [Event("message", "x", None)]),
        ([b"da", b"ta: h\xc3", b"\xa9\n", b"\n"], [Event("message", "h\u00e9", None)]),
        ([b"id: 7\ndata: 1\n\nevent: end\ndata: 2\n\n"], [Event("message", "1", "7"), Event("end", "2", "7")]),
        ([b"data: a\x0bb\x1cc\xe2\x80\xa8d\n\n"], [Event("message", "a\x0bb\x1cc\u2028d", None)]),
        ([b"event: log\ndata: half"], []),
        ([b"event: log\n\ndata: x\n\n"], [Event("message", "x", None)]),
        ([b"id: 9\n\n: ping\n\n"], [Event("", "", "9")]),
    ],
    ids=[
        "one event", "carriage returns", "a comment", "a character cut in two", "an id stays", "odd line breaks are text",
        "an event without its end", "an event without data", "an id alone",
    ],
)  # fmt: skip
def test_lines_become_events(blocks: list[bytes], events: list[Event]) -> None:
    assert events_of(*blocks) == events


@pytest.mark.parametrize("line", [b"data: " + b"x" * 1_000 + b"\n", b"x" * 1_000], ids=["many lines", "one line without end"])
def test_an_event_without_end_is_refused(line: bytes) -> None:
    with pytest.raises(terrace.UnreachableError, match="bytes"):
        events_of(*([line] * (streams.EVENT_BYTES_MAXIMUM // len(line) + 1_000)))


def test_a_log_that_is_cut_again_and_again_arrives_whole_and_once(service: Service) -> None:
    key = service.member()
    service.add_node()
    carrier = carriers.CutsStreams(events=1)
    client = terrace.Client(service.url, key, carrier=carrier)
    text = "".join(f"line {number} é\n" for number in range(40))
    with service.machines() as machines:
        machines.script, machines.output = Script(duration_ms=400), text.encode()
        job = client.submit_spec(TRUE)
        pieces = list(client.logs(job.id, follow=True))
    assert "".join(piece.text for piece in pieces) == text
    assert carrier.cuts >= 1
    resumed = [request.headers.get("Last-Event-ID") for request in carrier.asked if request.url.path.endswith("/logs")]
    assert resumed[-1] == str(len(text.encode()))


def test_a_log_is_followed_through_every_attempt_even_by_a_slow_reader(service: Service) -> None:
    client = terrace.Client(service.url, service.member())
    service.add_node()
    job = client.submit_spec(TRUE)
    service.executor.script = Script(duration_ms=300, exit_code=None, failure_class="node", message="lost")
    service.executor.output = b"hello\n"
    service.step()
    pieces = client.logs(job.id, follow=True)
    first = next(pieces)
    with service.machines():
        wait_until(lambda: client.job(job.id).state == "failed", seconds=20)
    assert [(piece.attempt, piece.text) for piece in (first, *pieces)] == [(1, "hello\n"), (2, "hello\n"), (3, "hello\n")]


def test_events_of_a_job_that_are_cut_arrive_once_and_in_order(service: Service) -> None:
    key = service.member()
    service.add_node()
    carrier = carriers.CutsStreams(events=1)
    client = terrace.Client(service.url, key, carrier=carrier)
    carriers.impatient(client)
    with service.machines():
        job = client.submit_spec(TRUE)
        followed = [event.id for event in client.events(job.id, follow=True)]
    assert followed == [event.id for event in terrace.Client(service.url, key).events(job.id)]
    assert carrier.cuts >= 2


def test_a_stream_that_only_breaks_is_given_up(service: Service) -> None:
    client = terrace.Client(service.url, service.member(), carrier=carriers.CutsStreams(events=0))
    carriers.impatient(client)
    job = client.submit_spec(TRUE)
    client.cancel(job.id)
    with pytest.raises(terrace.UnreachableError):
        list(client.logs(job.id, follow=True))


def test_a_silent_stream_may_end_as_often_as_the_service_likes() -> None:
    carrier = carriers.SpeaksAtLast(silent=3 * streams.CUTS_MAXIMUM, says=b"id: 8\nevent: node_lost\ndata: {}\n\n")
    wire = Transport(Config(url="http://terrace.test", key="key_a.b"), carrier=carrier, pause=lambda _: None)
    first = next(streams.follow(wire, "/v1/events", dict, is_endless=True))
    assert first == Event("node_lost", "{}", "8")
    assert len(carrier.asked) == 3 * streams.CUTS_MAXIMUM + 1


def test_a_stream_cut_before_its_first_event_begins_again_where_it_began() -> None:
    carrier = carriers.SpeaksAtLast(silent=1, says=b"event: node_lost\ndata: {}\n\n", opening=b"id: 41\n\n")
    wire = Transport(Config(url="http://terrace.test", key="key_a.b"), carrier=carrier, pause=lambda _: None)
    next(streams.follow(wire, "/v1/events", dict, is_endless=True))
    assert [request.headers.get("Last-Event-ID") for request in carrier.asked] == [None, "41"]


def test_the_stream_of_somebody_elses_job_is_not_found(service: Service) -> None:
    job = terrace.Client(service.url, service.member()).submit_spec(TRUE)
    other = terrace.Client(service.url, service.member("borealis", user="binh"))
    with pytest.raises(terrace.ApiError) as refused:
        list(other.logs(job.id, follow=True))
    assert refused.value.status == 404


def test_a_tenants_stream_that_stops_goes_on_without_a_gap(service: Service) -> None:
    key = service.member()
    other = terrace.Client(service.url, key)
    carrier = carriers.CutsStreams(events=1)
    client = terrace.Client(service.url, key, carrier=carrier)
    seen: list[int] = []
    three = itertools.islice(client.events(follow=True), 3)
    reader = threading.Thread(target=lambda: seen.extend(event.id for event in three), daemon=True)
    reader.start()
    wait_until(lambda: other.submit_spec(TRUE) and not reader.is_alive(), seconds=20)
    happened = [event.id for event in other.events()]
    start = happened.index(seen[0])
    assert seen == happened[start : start + 3]
    assert carrier.cuts >= 2
