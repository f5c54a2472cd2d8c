"""`Store.run` and `run_blocking`: what a caller may rely on, on each kind of database."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection

from store import postgres
from store.engine import Store
from store.errors import NotFoundError, StoreBusyError
from tests.support.gates import Gate, Gated
from tests.support.statements import Rows, Statement, rows
from tests.support.waiting import wait_until

NAMES = "SELECT name FROM leader ORDER BY name"


def note(name: str) -> Statement:
    """Return a command that leaves a row called `name`."""
    return Statement("INSERT INTO leader VALUES (:name, '', 0, 0, 0)", {"name": name})


@dataclass
class Breaks:
    """Leaves a row and then raises."""

    error: BaseException

    def execute(self, connection: Connection, /) -> None:
        note("broken").execute(connection)
        raise self.error


async def test_answer_comes_after_the_change_can_be_seen(store: Store) -> None:
    assert await store.run(note("a")) == 1
    assert await store.read(Rows(NAMES)) == [("a",)]


def test_blocking_twin_does_the_same(store: Store) -> None:
    assert store.run_blocking(note("a")) == 1
    assert store.read_blocking(Rows(NAMES)) == [("a",)]


@pytest.mark.parametrize("error", [NotFoundError("no", "no"), ZeroDivisionError("no")], ids=["a refusal", "a defect"])
async def test_command_that_raises_changes_nothing_and_tells_its_caller(store: Store, error: Exception) -> None:
    with pytest.raises(type(error), match="no"):
        await store.run(Breaks(error))
    assert await store.read(Rows(NAMES)) == []


@pytest.mark.parametrize("error", [SystemExit(1), StopIteration()], ids=["an exit", "an iterator's end"])
async def test_command_that_raises_what_no_future_carries_does_not_stop_the_writer(store: Store, error: BaseException) -> None:
    with pytest.raises(RuntimeError, match="the command raised"):
        await store.run(Breaks(error))
    assert await store.run(note("a")) == 1


async def test_command_of_a_cancelled_caller_is_done_all_the_same(store: Store) -> None:
    gate = Gate()
    task = asyncio.create_task(store.run(Gated(note("a"), gate)))
    await asyncio.to_thread(gate.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    assert await asyncio.to_thread(lambda: wait_until(lambda: rows(store, NAMES), seconds=10)) == [("a",)]


def test_caller_whose_event_loop_is_gone_does_not_stop_the_writer(store: Store) -> None:
    gate = Gate()

    async def leave() -> None:
        task = asyncio.create_task(store.run(Gated(note("a"), gate)))
        await asyncio.to_thread(gate.wait)
        task.cancel()

    asyncio.run(leave())
    gate.open()
    assert store.run_blocking(note("b")) == 1
    wait_until(lambda: rows(store, NAMES) == [("a",), ("b",)], seconds=10)


def test_full_queue_refuses_at_once_and_names_the_limit(database_url: str) -> None:
    store, gates = Store.open(database_url, queue_maximum=2), []
    for number in range(1 if store.is_sqlite else postgres.WRITE_CONNECTIONS_MAXIMUM):  # as many as can be under way
        gates.append(Gate())
        threading.Thread(target=store.run_blocking, args=[Gated(note(f"a{number:02}"), gates[-1])], daemon=True).start()
        gates[-1].wait()
    waiting = [threading.Thread(target=store.run_blocking, args=[note(name)], daemon=True) for name in ("b", "c")]
    for thread in waiting:
        thread.start()
    wait_until(lambda: store.waiting == 2, seconds=10)
    with pytest.raises(StoreBusyError) as refused:
        store.run_blocking(note("refused"))
    assert (refused.value.code, refused.value.data) == ("store_busy", {"limit": 2})
    for gate in gates:
        gate.open()
    for thread in waiting:
        thread.join()
    assert [name for (name,) in rows(store, NAMES)][-2:] == ["b", "c"]
    store.close()


def test_closing_store_finishes_what_it_accepted_and_refuses_the_rest(store: Store) -> None:
    gate = Gate()
    with ThreadPoolExecutor(5) as pool:
        accepted = [pool.submit(store.run_blocking, Gated(note("a"), gate))]
        gate.wait()
        accepted.extend(pool.submit(store.run_blocking, note(name)) for name in "bc")
        wait_until(lambda: store.waiting == 2 if store.is_sqlite else all(answer.done() for answer in accepted[1:]), seconds=10)
        closing = pool.submit(store.close)
        wait_until(lambda: is_closing(store), seconds=10)
        assert not closing.done()
        gate.open()
        closing.result()
        assert [answer.result(timeout=0) for answer in accepted] == [1, 1, 1]
    reopened = Store.open(store.url)
    assert rows(reopened, NAMES) == [("a",), ("b",), ("c",)]
    reopened.close()


def is_closing(store: Store) -> bool:
    try:
        store.run_blocking(Statement("UPDATE leader SET epoch = 0"))
    except StoreBusyError as refused:
        return refused.code == "store_closing"
    return False


async def test_closed_store_refuses_commands_and_questions(store: Store) -> None:
    await asyncio.to_thread(store.close)
    for refused in (store.run(note("a")), store.read(Rows(NAMES))):
        with pytest.raises(StoreBusyError, match="closing"):
            await refused


def test_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()
    assert store.change_mark() == store.change_mark()


def test_unknown_kind_of_database_is_refused() -> None:
    with pytest.raises(ValueError, match=r"database_url: 'mysql' is neither sqlite:/// nor postgresql://"):
        Store.open("mysql://localhost/terrace")
