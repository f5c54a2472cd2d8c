"""The output of attempts: bytes by offset, never out of order, never more than its cap."""

from __future__ import annotations

from typing import Any

import pytest

from store.agent_reports import DROPPED_NOTE, Output
from store.errors import NotFoundError
from store.logs import CHUNKS_MAXIMUM, LogPart, ReadLog
from tests.store.world import World

CAP = 100


@pytest.fixture
def acme(world: World) -> World:
    """A tenant, a node, and job `job_000002` with lease `lea_a`."""
    world.tenant("acme")
    world.node("a")
    world.bind(world.start(world.job(), on=[("a", 0)], lease="lea_a"))
    return world


def write(world: World, *pieces: tuple[int, bytes]) -> None:
    """Let the agent send pieces of output, each with its offset."""
    world.report("a", outputs=[Output(number, "lea_a", offset, data) for number, (offset, data) in enumerate(pieces)], cap=CAP)


def read(world: World, offset: int = 0, **fields: Any) -> LogPart:
    part: LogPart = world.read(ReadLog("job_000002", "ten_acme", offset=offset, **fields))
    return part


def test_reader_gets_what_there_is_and_where_to_go_on(acme: World) -> None:
    write(acme, (0, b"hello "), (6, b"world"))
    assert read(acme) == LogPart(1, b"hello world", 11, is_complete=False, state="starting")
    assert read(acme, 11) == LogPart(1, b"", 11, is_complete=False, state="starting")


@pytest.mark.parametrize(("offset", "data"), [(2, b"llo world"), (6, b"world"), (8, b"rld"), (50, b"")])
def test_reader_begins_anywhere(acme: World, offset: int, data: bytes) -> None:
    write(acme, (0, b"hello "), (6, b"world"))
    part = read(acme, offset)
    assert (part.data, part.next_offset) == (data, offset + len(data))


def test_hole_ends_the_answer_while_the_attempt_runs_and_is_skipped_after_its_end(acme: World) -> None:
    write(acme, (0, b"hello "), (20, b"later"))
    assert read(acme) == LogPart(1, b"hello ", 6, is_complete=False, state="starting")
    acme.run_to_the_end("lea_a")
    assert read(acme, 6) == LogPart(1, b"later", 25, is_complete=True, state="succeeded")


def test_piece_that_comes_late_fills_the_hole(acme: World) -> None:
    write(acme, (0, b"a"), (2, b"c"))
    write(acme, (1, b"b"))
    assert read(acme).data == b"abc"


def test_pieces_that_overlap_are_read_once(acme: World) -> None:
    write(acme, (0, b"hello "), (3, b"lo wo"), (8, b"rld"))
    assert read(acme).data == b"hello world"


def test_repeated_piece_changes_nothing(acme: World) -> None:
    write(acme, (0, b"hello"))
    write(acme, (0, b"HELLO"))
    assert read(acme).data == b"hello"


def test_long_output_comes_in_parts(acme: World) -> None:
    count = CHUNKS_MAXIMUM + 3
    write(acme, *((number, b"x") for number in range(count)))
    acme.run_to_the_end("lea_a")
    first = read(acme)
    assert (len(first.data), first.next_offset, first.is_complete) == (CHUNKS_MAXIMUM, CHUNKS_MAXIMUM, False)
    rest = read(acme, first.next_offset)
    assert (len(rest.data), rest.next_offset, rest.is_complete) == (3, count, True)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([(0, b"x" * 90), (90, b"y" * 30), (120, b"z")], id="in the middle of a piece"),
        pytest.param([(0, b"x" * 90), (90, b"y" * 10), (100, b"z" * 9), (109, b"z")], id="between two pieces"),
    ],
)
def test_output_beyond_its_cap_is_dropped_with_one_note(acme: World, pieces: list[tuple[int, bytes]]) -> None:
    write(acme, *pieces)
    write(acme, *pieces)
    assert read(acme).data == b"x" * 90 + b"y" * 10 + DROPPED_NOTE


def test_output_that_just_fits_its_cap_gets_no_note(acme: World) -> None:
    write(acme, (0, b"x" * CAP))
    assert read(acme).data == b"x" * CAP


def test_bytes_that_are_no_text_stay_as_they_are(acme: World) -> None:
    data = bytes(range(80))
    write(acme, (0, data))
    assert read(acme).data == data


def test_each_attempt_has_its_own_output_and_the_newest_is_the_default(acme: World) -> None:
    write(acme, (0, b"first"))
    acme.run_to_the_end("lea_a")
    waiting = acme.job()
    part: LogPart = acme.read(ReadLog(waiting, None))
    assert part == LogPart(0, b"", 0, is_complete=False, state="queued")
    assert read(acme, attempt=1).data == b"first"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (ReadLog("job_none", None), "job_not_found"),
        (ReadLog("job_000002", "ten_other"), "job_not_found"),
        (ReadLog("job_000002", None, attempt=7), "attempt_not_found"),
    ],
    ids=["no such job", "another tenant's job", "no such attempt"],
)
def test_log_that_is_not_there_or_somebody_elses_is_missing(acme: World, query: ReadLog, code: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        acme.read(query)
    assert refused.value.code == code
