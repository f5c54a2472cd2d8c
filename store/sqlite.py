"""The SQLite side of the store: one writer thread with group commit, and read connections.

Guarantees, one test each (tests/store): a command's result is delivered after its group is committed with synchronous=FULL; commands of one
process commit in the order in which they were handed in; a command that raises is rolled back to its own savepoint and fails alone; a full
queue refuses at once and changes nothing; a closed writer refuses, after finishing what it had accepted. The file may be shared with other
processes: the writer waits up to `busy_seconds` for the lock.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from store.commands import Command
from store.errors import RefusalError, StoreBusyError

GROUP_MAXIMUM = 256
QUEUE_MAXIMUM = 20_000
BUSY_SECONDS = 30.0
READ_CONNECTIONS_MAXIMUM = 16
MMAP_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that waits for its turn, and who waits for its outcome."""

    command: Command[Any]
    done: Callable[[Any, BaseException | None], None]


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


class Writer:
    """The one thread of a process that writes a SQLite file."""

    def __init__(self, path: Path, *, group_maximum: int = GROUP_MAXIMUM, queue_maximum: int = QUEUE_MAXIMUM) -> None:
        self._engine = make_engine(path, is_writer=True)
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
        self._engine.dispose()

    def _work(self) -> None:
        with self._engine.connect() as connection:
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
                _commit_group(connection, group)


def _commit_group(connection: Connection, group: list[Pending]) -> None:
    outcomes: list[tuple[Any, BaseException | None]] = []
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        outcomes = [_run_one(connection, pending.command) for pending in group]
        connection.exec_driver_sql("COMMIT")
    except Exception as error:  # noqa: BLE001  the group as a whole failed (disk full, lock not had): everyone is told, nothing was changed
        _roll_back(connection)
        failure = _as_refusal(error)
        outcomes = [(None, failure)] * len(group)
    for pending, (result, failed) in zip(group, outcomes, strict=True):
        pending.done(result, failed)


def _run_one(connection: Connection, command: Command[Any]) -> tuple[Any, BaseException | None]:
    connection.exec_driver_sql("SAVEPOINT command")
    try:
        result = command.execute(connection)
    except Exception as error:  # noqa: BLE001  whatever one command raises belongs to its caller and to nobody else
        connection.exec_driver_sql("ROLLBACK TO command")
        connection.exec_driver_sql("RELEASE command")
        return None, error
    connection.exec_driver_sql("RELEASE command")
    return result, None


def _roll_back(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    if driver is not None and driver.in_transaction:
        connection.exec_driver_sql("ROLLBACK")


def _as_refusal(error: Exception) -> Exception:
    if isinstance(error, OperationalError) and "locked" in str(error):
        return StoreBusyError("store_busy", f"another process held the database for {BUSY_SECONDS:.0f} s; nothing was changed")
    return error if isinstance(error, RefusalError) else RuntimeError(f"the group was rolled back: {error}")


def run_and_wait(writer: Writer, command: Command[Any]) -> Any:
    """Hand in a command from a thread and wait for its outcome."""
    future: Future[Any] = Future()

    def done(result: Any, error: BaseException | None) -> None:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    writer.submit(Pending(command, done))
    return future.result()
