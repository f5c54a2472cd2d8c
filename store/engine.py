"""`Store`: the one door to the database, the same on SQLite and PostgreSQL.

`run` is the only way to write and returns when the change is durable; `read` sees one consistent state; `wait_for_change` sleeps until
something may have changed. Blocking twins exist for threads and scripts. Called by api, scheduler.service, billing.service and terraced.
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from store import postgres, sqlite
from store.commands import Command, Query

T = TypeVar("T")

POLL_SECONDS = 0.02
SQLITE_PREFIX = "sqlite:///"
POSTGRES_PREFIX = "postgresql://"


class Store:
    """An open database. Open one per process; safe from any thread and from any event loop."""

    def __init__(self, url: str, reader: Engine, writer: sqlite.Writer | None) -> None:
        self.url = url
        self._reader = reader
        self._writer = writer
        self._watch = _SqliteWatch(reader) if writer is not None else _PostgresWatch(reader)

    @classmethod
    def open(cls, url: str, *, group_maximum: int = sqlite.GROUP_MAXIMUM, queue_maximum: int = sqlite.QUEUE_MAXIMUM) -> Store:
        """Open `sqlite:////absolute/path` or `postgresql://…`; ValueError for anything else. The schema must have been migrated."""
        if url.startswith(SQLITE_PREFIX):
            path = Path(url.removeprefix(SQLITE_PREFIX))
            writer = sqlite.Writer(path, group_maximum=group_maximum, queue_maximum=queue_maximum)
            return cls(url, sqlite.make_engine(path, is_writer=False), writer)
        if url.startswith(POSTGRES_PREFIX):
            return cls(url, postgres.make_engine(url), None)
        raise ValueError(f"database_url: {url.split(':', 1)[0]!r} is neither sqlite:/// nor postgresql://")

    @property
    def is_sqlite(self) -> bool:
        """True on SQLite."""
        return self._writer is not None

    @property
    def waiting(self) -> int:
        """Commands that wait for the writer now; always 0 on PostgreSQL."""
        return self._writer.waiting if self._writer is not None else 0

    async def run(self, command: Command[T]) -> T:
        """Do `command` durably and return its answer; raises what it raised, or StoreBusyError."""
        if self._writer is None:
            return await asyncio.to_thread(postgres.run, self._reader, command)
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

        self._writer.submit(sqlite.Pending(command, done))
        return await future

    def run_blocking(self, command: Command[T]) -> T:
        """The same from a thread that may wait."""
        if self._writer is None:
            result: T = postgres.run(self._reader, command)
            return result
        answer: T = sqlite.run_and_wait(self._writer, command)
        return answer

    async def read(self, query: Query[T]) -> T:
        """Answer `query` in a thread, from one consistent state."""
        return await asyncio.to_thread(self.read_blocking, query)

    def read_blocking(self, query: Query[T]) -> T:
        """Answer `query` here. Meant for threads, and for point reads on an event loop (tens of microseconds on SQLite)."""
        with self._reader.connect() as connection:
            if self._writer is None:
                return self._read_postgres(connection, query)
            connection.exec_driver_sql("BEGIN")
            try:
                return query.fetch(connection)
            finally:
                connection.exec_driver_sql("ROLLBACK")

    @staticmethod
    def _read_postgres(connection: Connection, query: Query[T]) -> T:
        connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            return query.fetch(connection)

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
        """Finish accepted commands and close every connection."""
        if self._writer is not None:
            self._writer.close()
        self._watch.close()
        self._reader.dispose()


class _SqliteWatch:
    """`PRAGMA data_version` of one quiet connection: it moves whenever another connection, in any process, commits."""

    def __init__(self, reader: Engine) -> None:
        self._connection = reader.connect()
        self._lock = threading.Lock()

    def mark(self) -> int:
        with self._lock:
            return int(self._connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class _PostgresWatch:
    """A thread that listens for the NOTIFY which every command sends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._count = 0
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="store-listener", daemon=True)
        self._thread.start()

    def mark(self) -> int:
        return self._count

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._is_closed.is_set():
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"LISTEN {postgres.CHANNEL}")
                    self._count += 1  # what happened while nobody listened is unknown: wake once
                    driver: Any = connection.connection.driver_connection
                    while not self._is_closed.is_set():
                        for _ in driver.notifies(timeout=0.2, stop_after=1):
                            self._count += 1
            except Exception:  # noqa: BLE001  the server may be away for a while; writers tell their callers, the listener waits
                self._is_closed.wait(1.0)
