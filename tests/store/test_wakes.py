"""Sleeping until something may have changed: wakes come from this process and from others, and none is lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from store import migrate
from store.engine import Store
from tests.store.test_durability import writer
from tests.store.test_running_commands import NAMES, note
from tests.support.databases import PostgresServer
from tests.support.gates import Gate, Gated
from tests.support.statements import Rows, rows
from tests.support.waiting import wait_until

SECONDS_MAXIMUM = 20
NO_TIME = 0.0


@pytest.fixture
def quiet(store: Store) -> Store:
    """A store whose listener has begun to listen: the wake that it owes to that is over."""
    if not store.is_sqlite:
        wait_until(lambda: store.change_mark() > 0, seconds=10)
    return store


async def test_change_of_this_process_wakes(quiet: Store) -> None:
    mark = quiet.change_mark()
    sleeper = asyncio.create_task(quiet.wait_for_change(mark, SECONDS_MAXIMUM))
    await quiet.run(note("a"))
    assert await sleeper != mark


async def test_change_of_another_process_wakes(quiet: Store) -> None:
    mark = quiet.change_mark()
    with writer(quiet.url, "other-", count=1):
        assert await quiet.wait_for_change(mark, SECONDS_MAXIMUM) != mark
        assert await quiet.read(Rows(NAMES)) == [("other-000000",)]


async def test_change_between_looking_and_sleeping_is_not_missed(quiet: Store) -> None:
    mark = quiet.change_mark()
    assert await quiet.read(Rows(NAMES)) == []
    await quiet.run(note("a"))
    assert await quiet.wait_for_change(mark, SECONDS_MAXIMUM) != mark


async def test_sleeper_that_nobody_wakes_gets_its_own_mark_back(quiet: Store) -> None:
    mark = quiet.change_mark()
    assert await quiet.wait_for_change(mark, NO_TIME) == mark


async def test_change_that_is_not_committed_wakes_nobody(quiet: Store) -> None:
    gate = Gate()
    mark = quiet.change_mark()
    under_way = asyncio.create_task(quiet.run(Gated(note("a"), gate)))
    await asyncio.to_thread(gate.wait)
    assert await quiet.wait_for_change(mark, NO_TIME) == mark
    gate.open()
    await under_way
    assert await quiet.wait_for_change(mark, SECONDS_MAXIMUM) != mark


@pytest.mark.postgres
async def test_listener_whose_session_is_ended_wakes_everybody_and_listens_again(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database("terrace")
    migrate.upgrade(url)
    store = Store.open(url)
    listeners = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'LISTEN terrace_changed'"
    wait_until(lambda: store.change_mark() > 0, seconds=10)
    mark = store.change_mark()
    assert own_postgres.execute(listeners) == [(1,)]
    mark = await store.wait_for_change(mark, SECONDS_MAXIMUM)
    await store.run(note("a"))
    assert await store.wait_for_change(mark, SECONDS_MAXIMUM) > mark
    store.close()


def test_many_changes_of_many_threads_all_arrive(quiet: Store) -> None:
    mark = quiet.change_mark()
    threads = [threading.Thread(target=quiet.run_blocking, args=[note(f"{number:02}")]) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: quiet.change_mark() != mark, seconds=10)
    assert len(rows(quiet, NAMES)) == 30
