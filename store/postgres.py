"""The PostgreSQL side of the store: a pool, one transaction per command, wakes by NOTIFY.

A command that meets a deadlock or a serialisation failure is run again, at most `RETRIES_MAXIMUM` times: commands are deterministic,
so doing one again after its rollback is doing it once. When the connection breaks during COMMIT nobody knows the outcome: that is
its own error.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from store.commands import Command
from store.errors import RefusalError

POOL_SIZE = 16
POOL_WAIT_SECONDS = 30
RETRIES_MAXIMUM = 5
RETRYABLE_STATES = frozenset({"40001", "40P01"})
CHANNEL = "terrace_changed"


class OutcomeUnknownError(RefusalError):
    """The connection broke while committing: the change may or may not be there. Ask before trying again."""


def make_engine(url: str) -> Engine:
    """Return a pooled engine for `postgresql://…`, driven by psycopg 3, with synchronous commit."""
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        connect_args={"options": "-c synchronous_commit=on -c timezone=UTC"},
    )


def run(engine: Engine, command: Command[Any]) -> Any:
    """Run `command` in a transaction of its own and wake those who listen; returns after the commit."""
    for attempt in range(RETRIES_MAXIMUM):
        try:
            with engine.connect() as connection:
                return _run_once(connection, command)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in RETRYABLE_STATES or attempt == RETRIES_MAXIMUM - 1:
                raise
    raise AssertionError("the loop above returns or raises")


def _run_once(connection: Connection, command: Command[Any]) -> Any:
    transaction = connection.begin()
    try:
        result = command.execute(connection)
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
    except BaseException:
        transaction.rollback()
        raise
    try:
        transaction.commit()
    except OperationalError as error:
        if error.connection_invalidated:
            raise OutcomeUnknownError("outcome_unknown", "the connection broke while committing; the change may be there") from error
        raise
    return result
