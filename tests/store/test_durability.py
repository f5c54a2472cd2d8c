"""Acknowledged is durable: whatever is killed, and when, no change that was told to be done is missing afterwards."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import migrate
from store.engine import Store
from store.errors import RefusalError
from store.postgres import OutcomeUnknownError
from tests.store.notes_writer import Note
from tests.support.databases import PostgresServer
from tests.support.statements import rows
from tests.support.waiting import wait_until

PROGRAM = Path(__file__).with_name("notes_writer.py")
REPOSITORY = Path(__file__).parents[2]
FOR_EVER = 10_000_000
ROUNDS = 3


@contextmanager
def writer(url: str, prefix: str, count: int = FOR_EVER) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start a process that writes; yield it with the names that it was told are done."""
    command = [sys.executable, str(PROGRAM), url, prefix, str(count)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, text=True)
    acknowledged: list[str] = []
    assert process.stdout is not None
    stdout = process.stdout
    reader = threading.Thread(target=lambda: acknowledged.extend(line.strip() for line in stdout if line.endswith("\n")))
    reader.start()
    try:
        yield process, acknowledged
    finally:
        process.kill()
        process.wait()
        reader.join()
        stdout.close()


def wait_for(told: Sized, count: int) -> None:
    wait_until(lambda: len(told) >= count, seconds=30)


def names(url: str) -> set[str]:
    store = Store.open(url)
    found = {name for (name,) in rows(store, "SELECT name FROM leader")}
    store.close()
    return found


def test_killed_writer_loses_nothing_that_was_acknowledged(database_url: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    told: set[str] = set()
    for attempt in range(ROUNDS):
        with writer(database_url, f"round{attempt}-") as (process, acknowledged):
            wait_for(acknowledged, chance.randint(20, 400))
            process.kill()
        told |= set(acknowledged)
    assert told <= names(database_url)
    if database_url.startswith("sqlite"):
        store = Store.open(database_url)
        assert rows(store, "PRAGMA integrity_check") == [("ok",)]
        store.close()


@pytest.mark.postgres
def test_crash_of_the_server_loses_nothing_that_was_acknowledged(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database("terrace")
    migrate.upgrade(url)
    store, told, done = Store.open(url), set[str](), threading.Event()

    def work(thread: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                told.add(store.run_blocking(Note(f"{thread}-{number}")))
            except RefusalError:
                done.wait(0.01)

    threads = [threading.Thread(target=work, args=[thread]) for thread in range(8)]
    for thread in threads:
        thread.start()
    for wanted in (100, 300):
        wait_for(told, wanted)
        own_postgres.crash()
        own_postgres.start()
    wait_for(told, 500)  # the store found its way back by itself
    done.set()
    for thread in threads:
        thread.join()
    store.close()
    assert told <= names(url)


@pytest.mark.postgres
def test_connection_that_breaks_during_commit_is_an_unknown_outcome(own_postgres: PostgresServer) -> None:
    url = own_postgres.create_database("terrace")
    migrate.upgrade(url)
    die = (
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
    )
    own_postgres.execute(die, "terrace")
    trigger = "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON leader DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()"
    own_postgres.execute(trigger, "terrace")
    store = Store.open(url)
    with pytest.raises(OutcomeUnknownError) as unknown:
        store.run_blocking(Note("a"))
    assert unknown.value.code == "outcome_unknown"
    own_postgres.execute("DROP TRIGGER at_commit ON leader", "terrace")
    assert store.run_blocking(Note("b")) == "b"
    store.close()
