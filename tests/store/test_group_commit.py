"""The writer of SQLite: one commit for a group, one savepoint for each of its commands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from store.commands import Command
from store.engine import Store
from store.errors import ConflictError, StoreBusyError
from store.pending import Pending
from tests.store.test_running_commands import NAMES, Breaks, note
from tests.support.gates import Gate, Gated
from tests.support.statements import Statement, rows

PAGES_NOW = "PRAGMA page_count"


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store.open(sqlite_url, group_maximum=8)
    yield opened
    opened.close()


def together(store: Store, *commands: Command[Any]) -> list[Future[Any]]:
    """Hand commands in while the writer is held up; return what each will answer, and what could be seen when it did."""
    gate, answers = Gate(), [Future[Any]() for _ in commands]
    holdup = threading.Thread(target=store.run_blocking, args=[Gated(None, gate)])
    holdup.start()
    gate.wait()
    for command, answer in zip(commands, answers, strict=True):

        def done(result: Any, error: BaseException | None, answer: Future[Any] = answer) -> None:
            answer.set_exception(error) if error is not None else answer.set_result((result, rows(store, NAMES)))

        store._writer.submit(Pending(command, done))
    gate.open()
    holdup.join()
    return answers


def test_command_that_fails_fails_alone(store: Store) -> None:
    first, broken, last = together(store, note("a"), Breaks(ConflictError("no", "no")), note("b"))
    with pytest.raises(ConflictError):
        broken.result()
    assert [first.result()[0], last.result()[0]] == [1, 1]
    assert rows(store, NAMES) == [("a",), ("b",)]


def test_group_is_one_commit_and_answers_come_after_it(store: Store) -> None:
    first, last = together(store, note("a"), note("b"))
    assert first.result() == last.result() == (1, [("a",), ("b",)])


def test_longer_queue_becomes_several_groups(store: Store) -> None:
    answers = together(store, *(note(f"{number:02}") for number in range(20)))
    assert [len(answer.result()[1]) for answer in answers] == [8] * 8 + [16] * 8 + [20] * 4


def test_commands_of_a_process_commit_in_the_order_of_their_coming(store: Store) -> None:
    told = [f"event-{number}" for number in range(20)]
    answers = together(
        store, *(Statement("INSERT INTO event (at_ms, kind, data) VALUES (0, :kind, '{}')", {"kind": kind}) for kind in told)
    )
    assert all(answer.result() for answer in answers)
    assert rows(store, "SELECT kind FROM event ORDER BY id") == [(kind,) for kind in told]


def test_full_disk_fails_the_group_changes_nothing_and_passes(store: Store) -> None:
    ((pages,),) = rows(store, PAGES_NOW)
    store.run_blocking(Statement(f"PRAGMA max_page_count = {pages}"))
    too_much = Statement("INSERT INTO leader VALUES (hex(zeroblob(100000)), '', 0, 0, 0)")
    for answer in together(store, note("a"), too_much, note("b")):
        with pytest.raises(StoreBusyError, match=r"cannot be written .*full") as refused:
            answer.result()
        assert refused.value.code == "database_unavailable"
    assert rows(store, NAMES) == []
    store.run_blocking(Statement("PRAGMA max_page_count = 1000000"))
    assert store.run_blocking(note("c")) == 1
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]
