"""`Store`: the one door to the database, the same on SQLite and PostgreSQL.

`run` is the only way to write and returns when the change is durable; `read` sees one consistent state; `wait_for_change` sleeps until
something may have changed. Blocking twins exist for threads and scripts. Called by api, scheduler.service, billing.service and terraced.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from store import pending, postgres, sqlite
from store.commands import Command, Query
from store.errors import StoreBusyError

T = TypeVar("T")

POLL_SECONDS = 0.02
READ_THREADS_MAXIMUM = 16
SQLITE_PREFIX = "sqlite:///"
POSTGRES_PREFIX = "postgresql://"


class _Watch(Protocol):
    def mark(self) -> int: ...

    def close(self) -> None: ...


class Store:
    """An open database. Open one per process; safe from any thread and from any event loop."""

    def __init__(self, url: str, reader: Engine, writer: pending.Writer, watch: _Watch) -> None:
        self.url = url
        self.is_sqlite = url.startswith(SQLITE_PREFIX)
        self._reader = reader
        self._writer = writer
        self._watch = watch
        self._readers = ThreadPoolExecutor(READ_THREADS_MAXIMUM, "store-reader")

    @classmethod
    def open(
        cls,
        url: str,
        *,
        group_maximum: int = sqlite.GROUP_MAXIMUM,
        queue_maximum: int = sqlite.QUEUE_MAXIMUM,
        busy_seconds: float = sqlite.BUSY_SECONDS,
    ) -> Store:
        """Open `sqlite:////absolute/path` or `postgresql://…`; ValueError for anything else. The schema must have been migrated.

        `queue_maximum`: commands that may wait. On SQLite, `group_maximum`: commands of one commit; `busy_seconds`: the wait for others.
        """
        if url.startswith(SQLITE_PREFIX):
            path = Path(url.removeprefix(SQLITE_PREFIX))
            writer = sqlite.Writer(path, group_maximum=group_maximum, queue_maximum=queue_maximum, busy_seconds=busy_seconds)
            reader = sqlite.make_engine(path, is_writer=False)
            return cls(url, reader, writer, _SqliteWatch(reader))
        if url.startswith(POSTGRES_PREFIX):
            reader = postgres.make_engine(url)
            return cls(url, reader, postgres.Writer(url, reader, queue_maximum=queue_maximum), postgres.Watch(url))
        raise ValueError(f"database_url: {url.split(':', 1)[0]!r} is neither sqlite:/// nor postgresql://")

    @property
    def waiting(self) -> int:
        """Commands that wait for the writer now."""
        return self._writer.waiting

    async def run(self, command: Command[T]) -> T:
        """Do `command` durably and return its answer; raises what it raised, or StoreBusyError.

        Cancelling the wait does not take the command back: it is done or refused as if somebody still waited.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def done(result: Any, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(settle, result, error)

        self._writer.submit(pending.Pending(command, done))
        return await future

    def run_blocking(self, command: Command[T]) -> T:
        """The same from a thread that may wait."""
        answer: T = pending.run_and_wait(self._writer, command)
        return answer

    async def read(self, query: Query[T]) -> T:
        """Answer `query` in a thread, from one consistent state; StoreBusyError when the database does not answer."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_blocking, query)
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            raise StoreBusyError("store_closing", "the store is closing") from error

    def read_blocking(self, query: Query[T]) -> T:
        """Answer `query` here. Meant for threads, and for point reads on an event loop (tens of microseconds on SQLite)."""
        if not self.is_sqlite:
            return self._read_postgres(query)
        with self._reader.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                return query.fetch(connection)
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def _read_postgres(self, query: Query[T]) -> T:
        level = "REPEATABLE READ" if getattr(query, "is_consistent", True) else "READ COMMITTED"
        try:
            with self._reader.connect() as plain:
                connection = plain.execution_options(isolation_level=level, postgresql_readonly=True)
                with connection.begin():
                    return query.fetch(connection)
        except SQLAlchemyError as error:
            refusal = postgres.as_refusal(self._reader, error)
            if refusal is None:
                raise
            raise refusal from error

    def change_mark(self) -> int:
        """Return a mark of the database's state for `wait_for_change`."""
        return self._watch.mark()

    async def wait_for_change(self, since: int, timeout_seconds: float) -> int:
        """Return a newer mark as soon as something may have changed since `since`, or the same after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            mark = self._watch.mark()
            if mark != since or time.monotonic() >= deadline:
                return mark
            await asyncio.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def close(self) -> None:
        """Finish accepted commands and close every connection. Later commands and questions are refused."""
        self._writer.close()
        self._readers.shutdown()
        self._watch.close()
        self._reader.dispose()


class _SqliteWatch:
    """`PRAGMA data_version` of one quiet connection: it moves whenever another connection, in any process, commits."""

    def __init__(self, reader: Engine) -> None:
        self._connection: Connection | None = reader.connect()
        self._lock = threading.Lock()
        self._last = 0

    def mark(self) -> int:
        with self._lock:
            if self._connection is not None:
                self._last = int(self._connection.exec_driver_sql("PRAGMA data_version").scalar_one())
            return self._last

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
