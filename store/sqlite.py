"""The SQLite side of the store: one writer thread with group commit, and read connections.

Guarantees, one test each (tests/store): a command's result is delivered after its group is committed with synchronous=FULL; commands of one
process commit in the order in which they were handed in; a command that raises is rolled back to its own savepoint and fails alone; a full
queue refuses at once and changes nothing; a closed writer refuses, after finishing what it had accepted.

The file may be shared with other processes. SQLite lets only one write, and who waits polls, ever more slowly: a busy process would starve
the others for seconds. So writers take turns: who wants to write holds the turn (a lock on a file beside the database) until its
transaction has begun, and who has just committed queues behind it. A writer waits at most `busy_seconds` for each of the two.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from store.commands import Command
from store.errors import StoreBusyError
from store.pending import Pending

GROUP_MAXIMUM = 256
QUEUE_MAXIMUM = 20_000
BUSY_SECONDS = 30.0
TURN_POLL_SECONDS = 0.001
READ_CONNECTIONS_MAXIMUM = 18  # the store's reading threads, its watch, and a reader on an event loop
MMAP_BYTES = 256 * 1024 * 1024
TURN_SUFFIX = "-turn"


def make_engine(path: Path, *, is_writer: bool, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """Return an engine whose connections begin no transaction by themselves: BEGIN is always explicit here."""
    pool: dict[str, Any] = {"poolclass": NullPool} if is_writer else {"poolclass": QueuePool, "pool_size": READ_CONNECTIONS_MAXIMUM}
    engine = create_engine(
        f"sqlite+pysqlite:///{path}",
        isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "timeout": busy_seconds, "cached_statements": 512},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA mmap_size={MMAP_BYTES}")
        if not is_writer:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    return engine


@dataclass(frozen=True, slots=True)
class _Turn:
    """Whose turn it is to begin the next transaction, among all processes that write one file."""

    file: int

    @classmethod
    def beside(cls, path: Path) -> _Turn:
        return cls(os.open(f"{path}{TURN_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def take(self, busy_seconds: float) -> None:
        deadline = time.monotonic() + busy_seconds
        pause = threading.Event()
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise _held_for(busy_seconds) from None
                pause.wait(TURN_POLL_SECONDS)
            else:
                return

    def pass_on(self) -> None:
        fcntl.flock(self.file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self.file)


class Writer:
    """The one thread of a process that writes a SQLite file."""

    def __init__(
        self, path: Path, *, group_maximum: int = GROUP_MAXIMUM, queue_maximum: int = QUEUE_MAXIMUM, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self._engine = make_engine(path, is_writer=True, busy_seconds=busy_seconds)
        self._connection = self._engine.connect()  # here, so that a file that cannot be opened is its opener's error
        self._turn = _Turn.beside(path)
        self._busy_seconds = busy_seconds
        self._group_maximum = group_maximum
        self._queue: queue.Queue[Pending | None] = queue.Queue(queue_maximum)
        self._is_closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Commands that wait for their turn now."""
        return self._queue.qsize()

    def submit(self, pending: Pending) -> None:
        """Hand in a command; StoreBusyError when the queue is full or the writer is closing."""
        with self._closing:
            if self._is_closed:
                raise StoreBusyError("store_closing", "the store is closing")
            try:
                self._queue.put_nowait(pending)
            except queue.Full:
                raise StoreBusyError(
                    "store_busy", f"{self._queue.maxsize} changes are waiting already; try again later", limit=self._queue.maxsize
                ) from None

    def close(self) -> None:
        """Finish what was accepted, then end the thread."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._queue.put(None)
        self._thread.join()
        self._connection.close()
        self._turn.close()
        self._engine.dispose()

    def _work(self) -> None:
        is_open = True
        while is_open:
            first = self._queue.get()
            if first is None:
                return
            group = [first]
            while len(group) < self._group_maximum:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    is_open = False
                    break
                group.append(following)
            self._commit(group)

    def _commit(self, group: list[Pending]) -> None:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            self._begin()
            outcomes = [_run_one(self._connection, pending.command) for pending in group]
            self._connection.exec_driver_sql("COMMIT")
        except BaseException as error:  # noqa: BLE001  the group as a whole failed (disk full, lock not had): everyone is told, nothing was changed
            _roll_back(self._connection)
            failure = _as_refusal(error, self._busy_seconds)
            outcomes = [(None, failure)] * len(group)
        for pending, (result, failed) in zip(group, outcomes, strict=True):
            pending.settle(result, failed)

    def _begin(self) -> None:
        self._turn.take(self._busy_seconds)
        try:
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        finally:
            self._turn.pass_on()


def _run_one(connection: Connection, command: Command[Any]) -> tuple[Any, BaseException | None]:
    connection.exec_driver_sql("SAVEPOINT command")
    try:
        result = command.execute(connection)
    except BaseException as error:  # whatever one command raises belongs to its caller and to nobody else
        if not _is_in_transaction(connection):
            raise  # SQLite gave up the transaction of the whole group, as it does when the disk is full
        connection.exec_driver_sql("ROLLBACK TO command")
        connection.exec_driver_sql("RELEASE command")
        return None, error
    connection.exec_driver_sql("RELEASE command")
    return result, None


def _roll_back(connection: Connection) -> None:
    with contextlib.suppress(SQLAlchemyError):  # on a file that cannot be read any more: the next group is told so by its BEGIN
        if _is_in_transaction(connection):
            connection.exec_driver_sql("ROLLBACK")


def _is_in_transaction(connection: Connection) -> bool:
    driver: Any = connection.connection.driver_connection
    return bool(driver.in_transaction)


def _held_for(busy_seconds: float) -> StoreBusyError:
    return StoreBusyError("store_busy", f"another process held the database for {busy_seconds:g} s; nothing was changed")


def _as_refusal(error: BaseException, busy_seconds: float) -> BaseException:
    original = getattr(error, "orig", error)
    if isinstance(error, StoreBusyError) or not isinstance(original, sqlite3.Error):
        return error
    name = original.sqlite_errorname
    if name.startswith("SQLITE_BUSY"):
        return _held_for(busy_seconds)
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return StoreBusyError("database_unavailable", f"the database cannot be written ({original}); nothing was changed")
    return RuntimeError(f"the group was rolled back: {error}")
