"""The PostgreSQL side of the store: a pool, one transaction per command, wakes by NOTIFY.

A command that meets a deadlock or a serialisation failure is run again, `ATTEMPTS_MAXIMUM` times in all: commands are deterministic,
so doing one again after its rollback is doing it once. When the connection breaks before COMMIT nothing was changed; when it breaks during
COMMIT nobody knows the outcome: that is its own error.

Every transaction gets its identifier before anything else: store/events.py can then tell which events may still appear.

NOTIFY follows the commit, in a transaction of its own that nobody waits for, one for many commits. Inside the command's transaction it
would hold a lock of the whole server while the commit waits for the disk, and so make all commands commit one after the other. A process
that is killed between the two leaves the wake to the next change or to the sleeper's own timeout.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from store.commands import Command
from store.errors import RefusalError, StoreBusyError
from store.pending import Pending

WRITE_CONNECTIONS_MAXIMUM = 12
READ_CONNECTIONS_MAXIMUM = 17  # the store's reading threads, and a reader on an event loop
POOL_WAIT_SECONDS = 30
CONNECT_SECONDS = 10
LOCK_SECONDS = 30  # a command that waits for a row as long as that is refused, as one that waits for SQLite's lock is
IDLE_SECONDS = 60  # a session that stops in the middle of a transaction (its machine died) is ended: locks and events wait for it
DEAD_SECONDS = 30  # a server that acknowledges nothing for so long is gone
QUEUE_MAXIMUM = 20_000
ATTEMPTS_MAXIMUM = 5
RETRYABLE_STATES = frozenset({"40001", "40P01"})
LOCK_NOT_HAD = "55P03"
IDLE_TOO_LONG = "25P03"
UNAVAILABLE_CLASSES = frozenset({"08", "53", "57", "58"})  # connection, resources, operator, system: nothing that the command did
CHANNEL = "terrace_changed"
RECONNECT_SECONDS = 1.0
LISTEN_SECONDS = 0.05  # how often a listener looks whether it is to end


class OutcomeUnknownError(RefusalError):
    """The connection broke while committing: the change may or may not be there. Ask before trying again."""


def make_engine(url: str) -> Engine:
    """Return a pooled engine for `postgresql://…`, driven by psycopg 3, with synchronous commit."""
    return create_engine(
        _with_driver(url),
        pool_size=WRITE_CONNECTIONS_MAXIMUM + READ_CONNECTIONS_MAXIMUM,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        connect_args=_connect_args(
            "synchronous_commit=on", "timezone=UTC", f"lock_timeout={LOCK_SECONDS}s", f"idle_in_transaction_session_timeout={IDLE_SECONDS}s"
        ),
    )


def _make_signal_engine(url: str) -> Engine:
    """Return an engine for wakes, which are worth nothing after a crash: its commits wait for no disk."""
    return create_engine(
        _with_driver(url),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=_connect_args("synchronous_commit=off"),
    )


def _connect_args(*settings: str) -> dict[str, Any]:
    probes = {"keepalives_idle": DEAD_SECONDS // 3, "keepalives_interval": DEAD_SECONDS // 6, "keepalives_count": 4}
    options = " ".join(f"-c {setting}" for setting in settings)
    return {"options": options, "connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": DEAD_SECONDS * 1_000, **probes}


def _with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


class Writer:
    """Runs commands side by side, each in a transaction of its own."""

    def __init__(self, url: str, engine: Engine, *, queue_maximum: int = QUEUE_MAXIMUM) -> None:
        self._engine = engine
        self._queue_maximum = queue_maximum
        self._accepted = 0
        self._is_closed = False
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(WRITE_CONNECTIONS_MAXIMUM, "store-writer")
        self._bell = _Bell(url)

    @property
    def waiting(self) -> int:
        """Commands that wait for a connection now."""
        return max(0, self._accepted - WRITE_CONNECTIONS_MAXIMUM)

    def submit(self, pending: Pending) -> None:
        """Hand in a command; StoreBusyError when too many wait or the store is closing."""
        with self._lock:
            if self._is_closed:
                raise StoreBusyError("store_closing", "the store is closing")
            if self.waiting >= self._queue_maximum:
                raise StoreBusyError(
                    "store_busy", f"{self._queue_maximum} changes are waiting already; try again later", limit=self._queue_maximum
                )
            self._accepted += 1
            self._threads.submit(self._work, pending)

    def close(self) -> None:
        """Finish what was accepted, then let go of the threads. The engine is its maker's to dispose of."""
        with self._lock:
            self._is_closed = True
        self._threads.shutdown()
        self._bell.close()

    def _work(self, pending: Pending) -> None:
        result, failed = None, None
        try:
            result = run(self._engine, pending.command)
        except BaseException as error:  # noqa: BLE001  whatever a command raises belongs to its caller
            failed = error
        with self._lock:
            self._accepted -= 1
        self._bell.ring()  # after a failure too: readers of events may have waited for the end of this transaction
        pending.settle(result, failed)


def run(engine: Engine, command: Command[Any]) -> Any:
    """Run `command` in a transaction of its own; returns after the commit."""
    for attempt in range(1, ATTEMPTS_MAXIMUM + 1):
        try:
            return _run_once(engine, command)
        except RefusalError:
            raise
        except Exception as error:
            if sqlstate(error) in RETRYABLE_STATES and attempt < ATTEMPTS_MAXIMUM:
                continue
            refusal = as_refusal(engine, error)
            if refusal is None:
                raise
            raise refusal from error
    raise AssertionError("the loop above returns or raises")


def _run_once(engine: Engine, command: Command[Any]) -> Any:
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            connection.exec_driver_sql("SELECT pg_current_xact_id()")
            result = command.execute(connection)
        except BaseException:
            with contextlib.suppress(SQLAlchemyError):  # a broken connection cannot roll back, and need not
                transaction.rollback()
            raise
        try:
            transaction.commit()
        except SQLAlchemyError as error:
            if connection.invalidated:
                raise OutcomeUnknownError("outcome_unknown", "the connection broke while committing; the change may be there") from error
            raise
        return result


def sqlstate(error: BaseException) -> str | None:
    """Return what the server said, None when it said nothing. Statements of store/hot.py raise the driver's errors as they are."""
    state: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return state


def as_refusal(engine: Engine, error: Exception) -> StoreBusyError | None:
    """Return the refusal that says why nothing was changed, None for an error that the command itself made."""
    if isinstance(error, PoolTimeoutError):
        return StoreBusyError("store_busy", f"no connection was free for {POOL_WAIT_SECONDS} s; nothing was changed")
    state = sqlstate(error)
    if state in RETRYABLE_STATES:
        return StoreBusyError(
            "store_busy", f"the change met other changes {ATTEMPTS_MAXIMUM} times; nothing was changed", limit=ATTEMPTS_MAXIMUM
        )
    if state == LOCK_NOT_HAD:
        return StoreBusyError("store_busy", f"another change held the same rows for {LOCK_SECONDS} s; nothing was changed")
    driver: Any = engine.dialect.dbapi
    original = getattr(error, "orig", error)
    is_driver_error = isinstance(original, driver.OperationalError | driver.InterfaceError)
    is_lost = state == IDLE_TOO_LONG or (is_driver_error and (state is None or state[:2] in UNAVAILABLE_CLASSES))
    return StoreBusyError("database_unavailable", "the database does not answer; nothing was changed") if is_lost else None


class _Bell:
    """A thread that sends one NOTIFY for all rings since the last."""

    def __init__(self, url: str) -> None:
        self._engine = _make_signal_engine(url)
        self._rung = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="store-bell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        self._rung.set()

    def close(self) -> None:
        self._is_closed = True
        self._rung.set()
        self._thread.join()
        self._engine.dispose()

    def _work(self) -> None:
        while True:
            try:
                with self._engine.connect() as connection:
                    while True:
                        self._rung.wait()
                        self._rung.clear()
                        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
                        if self._is_closed:
                            return
            except SQLAlchemyError:
                if self._is_closed:
                    return
                threading.Event().wait(RECONNECT_SECONDS)
                self._rung.set()


class Watch:
    """A thread that listens for the NOTIFY which follows every command."""

    def __init__(self, url: str) -> None:
        self._engine = _make_signal_engine(url)
        self._count = 0
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="store-listener", daemon=True)
        self._thread.start()

    def mark(self) -> int:
        """Return a number that moves when something may have changed."""
        return self._count

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._thread.join()
        self._engine.dispose()

    def _listen(self) -> None:
        while not self._is_closed.is_set():
            try:
                with self._engine.connect() as connection:
                    connection.exec_driver_sql(f"LISTEN {CHANNEL}")
                    self._count += 1  # what happened while nobody listened is unknown: wake once
                    self._follow(connection)
            except Exception:  # noqa: BLE001  the server may be away for a while; writers tell their callers, the listener waits
                self._is_closed.wait(RECONNECT_SECONDS)

    def _follow(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        while not self._is_closed.is_set():
            for _ in driver.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                self._count += 1
