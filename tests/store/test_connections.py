"""What every connection of the store has been told, as the database itself says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from store.engine import Store
from tests.store.test_running_commands import NAMES, note
from tests.support.gates import AskedTwice, Gate
from tests.support.statements import Rows, Statement, rows

PRAGMAS = {"synchronous": 2, "foreign_keys": 1, "journal_mode": "wal"}  # 2 = FULL
SETTINGS = {
    "synchronous_commit": "on",
    "TimeZone": "UTC",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "1min",
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
}


class Told(Rows):
    """A question that is asked in a command: what the writer's connection has been told."""

    def execute(self, connection: Connection, /) -> list[tuple[Any, ...]]:
        return self.fetch(connection)


def test_writer_of_sqlite_waits_for_the_disk_and_checks_foreign_keys(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    assert {name: store.run_blocking(Told(f"PRAGMA {name}"))[0][0] for name in PRAGMAS} == PRAGMAS
    store.close()


@pytest.mark.postgres
def test_writer_of_postgresql_waits_for_the_disk(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    store.run_blocking(Statement("SELECT set_config('synchronous_commit', 'off', true)"))  # lasts for that transaction only
    assert {name: store.run_blocking(Told(f"SHOW {name}"))[0][0] for name in SETTINGS} == SETTINGS
    store.close()


def test_question_cannot_write(store: Store) -> None:
    with pytest.raises(SQLAlchemyError, match=r"read-?only"):
        store.read_blocking(Rows("INSERT INTO leader VALUES ('a', '', 0, 0, 0) RETURNING name"))
    assert rows(store, NAMES) == []


def test_question_sees_one_state_whatever_is_committed_meanwhile(store: Store) -> None:
    store.run_blocking(note("a"))
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(store.read_blocking, AskedTwice(Rows(NAMES), gate))
        gate.wait()
        store.run_blocking(note("b"))
        gate.open()
        assert answer.result() == ([("a",)], [("a",)])
    assert rows(store, NAMES) == [("a",), ("b",)]
