"""PostgreSQL in trouble: deadlocks are tried again, a lost server is told as such, and the store finds its way back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from store import migrate, postgres
from store.engine import Store
from store.errors import StoreBusyError
from tests.store.test_running_commands import NAMES, note
from tests.support.databases import PostgresServer
from tests.support.gates import Gate, Gated
from tests.support.statements import Rows, Statement, rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.postgres

DEADLOCK = "DO $$ BEGIN RAISE EXCEPTION 'as in a deadlock' USING ERRCODE = '40P01'; END $$"


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    opened = Store.open(postgres_url)
    yield opened
    opened.close()


@dataclass
class Fails:
    """Leaves a row, then meets a deadlock the first `times` times; through the driver itself when `is_hot`."""

    times: int
    is_hot: bool = False
    runs: int = 0

    def execute(self, connection: Connection, /) -> int:
        self.runs += 1
        note("a").execute(connection)
        if self.runs <= self.times:
            driver: Any = connection.connection.driver_connection if self.is_hot else connection
            driver.execute(DEADLOCK) if self.is_hot else connection.exec_driver_sql(DEADLOCK)
        return self.runs


@dataclass
class LocksBoth:
    """Updates two rows in its own order and waits in between, once, for the other one to hold its first."""

    order: tuple[str, str]
    barrier: threading.Barrier
    runs: list[int] = field(default_factory=list)

    def execute(self, connection: Connection, /) -> None:
        self.runs.append(1)
        first, second = (Statement("UPDATE leader SET epoch = epoch + 1 WHERE name = :name", {"name": name}) for name in self.order)
        first.execute(connection)
        if len(self.runs) == 1:
            self.barrier.wait(30)
        second.execute(connection)


@dataclass
class StopsHalfWay:
    """Leaves a row, waits at a gate, and leaves another."""

    gate: Gate

    def execute(self, connection: Connection, /) -> None:
        Gated(note("a"), self.gate).execute(connection)
        note("b").execute(connection)


@pytest.mark.parametrize("is_hot", [False, True], ids=["in a statement of SQLAlchemy", "in a hot statement"])
def test_deadlock_is_tried_again(store: Store, is_hot: bool) -> None:
    assert store.run_blocking(Fails(times=2, is_hot=is_hot)) == 3
    assert rows(store, NAMES) == [("a",)]


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("55P03", "store_busy"),
        ("25P03", "database_unavailable"),
        ("53100", "database_unavailable"),
        ("57P01", "database_unavailable"),
    ],
    ids=["a row that is held too long", "a session that was idle too long", "a full disk", "a server that shuts down"],
)
def test_trouble_that_the_command_did_not_make_is_a_refusal(store: Store, sqlstate: str, code: str) -> None:
    with pytest.raises(StoreBusyError, match="nothing was changed") as refused:
        store.run_blocking(Statement(f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{sqlstate}'; END $$"))
    assert refused.value.code == code


def test_error_that_the_command_made_is_told_as_it_is(store: Store) -> None:
    with pytest.raises(ProgrammingError, match="nowhere"):
        store.run_blocking(Statement("SELECT * FROM nowhere"))


def test_attempts_have_a_limit_that_the_refusal_names(store: Store) -> None:
    command = Fails(times=100)
    with pytest.raises(StoreBusyError) as refused:
        store.run_blocking(command)
    assert (command.runs, refused.value.data) == (postgres.ATTEMPTS_MAXIMUM, {"limit": postgres.ATTEMPTS_MAXIMUM})
    assert rows(store, NAMES) == []


def test_commands_that_lock_each_other_out_are_both_done(store: Store) -> None:
    for name in ("a", "b"):
        store.run_blocking(note(name))
    barrier = threading.Barrier(2)
    commands = [LocksBoth(("a", "b"), barrier), LocksBoth(("b", "a"), barrier)]
    threads = [threading.Thread(target=store.run_blocking, args=[command]) for command in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(store, "SELECT epoch FROM leader") == [(2,), (2,)]
    assert sum(len(command.runs) for command in commands) >= 3  # one of them was tried again


@pytest.fixture
def own_store(own_postgres: PostgresServer) -> Iterator[Store]:
    url = own_postgres.create_database("terrace")
    migrate.upgrade(url)
    opened = Store.open(url)
    yield opened
    opened.close()


def test_session_that_is_ended_before_the_commit_is_a_refusal_that_changed_nothing(own_store: Store, own_postgres: PostgresServer) -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(own_store.run_blocking, StopsHalfWay(gate))
        gate.wait()
        own_postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
        gate.open()
        with pytest.raises(StoreBusyError) as refused:
            answer.result()
    assert refused.value.code == "database_unavailable"
    assert rows(own_store, NAMES) == []
    assert own_store.run_blocking(note("c")) == 1


async def test_server_that_is_away_refuses_changes_and_questions_and_serves_again_when_it_is_back(
    own_store: Store, own_postgres: PostgresServer
) -> None:
    wait_until(lambda: own_store.change_mark() > 0, seconds=10)
    mark = own_store.change_mark()
    own_postgres.stop()
    for question in (own_store.run(note("a")), own_store.read(Rows(NAMES))):
        with pytest.raises(StoreBusyError, match="does not answer") as refused:
            await question
        assert refused.value.code == "database_unavailable"
    own_postgres.start()
    assert await own_store.wait_for_change(mark, 20) > mark  # nobody knows what was missed, so everybody looks once
    assert await own_store.run(note("b")) == 1
    assert await own_store.read(Rows(NAMES)) == [("b",)]
