"""Two processes that write one SQLite file, as the api and the scheduler do: none is refused, none starves, a stuck one is named."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from store.engine import Store
from store.errors import StoreBusyError
from store.sqlite import TURN_SUFFIX
from tests.store.test_durability import writer
from tests.store.test_running_commands import NAMES, note
from tests.support.gates import Gate, Gated
from tests.support.statements import Statement, rows
from tests.support.waiting import wait_until

KINDS = "SELECT kind FROM event ORDER BY id"
SHORT_SECONDS = 0.05


@pytest.fixture
def pair(sqlite_url: str) -> Iterator[tuple[Store, Store]]:
    """Two stores on one file, each with a writer of its own."""
    with ExitStack() as stack:
        stores = [Store.open(sqlite_url, busy_seconds=seconds) for seconds in (30, SHORT_SECONDS)]
        for store in stores:
            stack.callback(store.close)
        yield stores[0], stores[1]


def event(kind: str) -> Statement:
    return Statement("INSERT INTO event (at_ms, kind, data) VALUES (0, :kind, '{}')", {"kind": kind})


def is_turn_taken(store: Store) -> bool:
    with Path(store.url.removeprefix("sqlite:///") + TURN_SUFFIX).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_processes_that_write_at_once_are_all_served(sqlite_url: str) -> None:
    with writer(sqlite_url, "a-", count=300) as (first, told_first), writer(sqlite_url, "b-", count=300) as (second, told_second):
        assert (first.wait(60), second.wait(60)) == (0, 0)
        wait_until(lambda: len(told_first) == len(told_second) == 300, seconds=10)
    store = Store.open(sqlite_url)
    assert len(rows(store, NAMES)) == 600
    store.close()


def test_who_has_just_committed_queues_behind_who_waits(sqlite_url: str) -> None:
    busy, waiting, gate = Store.open(sqlite_url, group_maximum=1), Store.open(sqlite_url), Gate()
    with ThreadPoolExecutor(3) as pool:
        pool.submit(busy.run_blocking, Gated(event("busy 1"), gate))
        gate.wait()
        pool.submit(waiting.run_blocking, event("waiting"))
        wait_until(lambda: is_turn_taken(busy), seconds=10)
        pool.submit(busy.run_blocking, event("busy 2"))
        wait_until(lambda: busy.waiting == 1, seconds=10)
        gate.open()
    assert rows(busy, KINDS) == [("busy 1",), ("waiting",), ("busy 2",)]
    busy.close()
    waiting.close()


def test_process_that_holds_the_database_too_long_is_a_refusal_that_changed_nothing(pair: tuple[Store, Store]) -> None:
    holder, other, gate = *pair, Gate()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(holder.run_blocking, Gated(note("a"), gate))
        gate.wait()
        with pytest.raises(StoreBusyError, match=r"held the database for 0\.05 s"):
            other.run_blocking(note("b"))
        gate.open()
        assert held.result() == 1
    assert other.run_blocking(note("c")) == 1
    assert rows(other, NAMES) == [("a",), ("c",)]


def test_reader_is_not_held_up_by_a_writer(pair: tuple[Store, Store]) -> None:
    holder, other, gate = *pair, Gate()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(holder.run_blocking, Gated(note("a"), gate))
        gate.wait()
        assert rows(other, NAMES) == []
        gate.open()
