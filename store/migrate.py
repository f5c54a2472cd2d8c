"""The schema's revisions: bring a database to the newest one, or say where it stands.

Called by the composition root before anything else opens the database. One transaction on both databases: a migration that is interrupted
leaves the schema as it was. A database that a newer release has written is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlmodel import SQLModel

from store import postgres, sqlite, tables
from store.engine import POSTGRES_PREFIX, SQLITE_PREFIX

LOCK_KEY = 7_236_457  # of PostgreSQL's advisory lock: two processes that start together migrate one after the other


class SchemaError(Exception):
    """The database's schema is not one that this release can work with."""


def upgrade(url: str) -> str:
    """Bring the database to the newest revision, creating it where it is empty; return the revision. SchemaError when it is newer."""
    config = _config()
    newest = _newest(config)
    with _connection(url) as connection:
        present = MigrationContext.configure(connection).get_current_revision()
        known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise SchemaError(f"the database is at revision {present}, which this release does not know; use the release that wrote it")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest


def check(url: str) -> str:
    """Return the database's revision; SchemaError when it is not the newest one."""
    newest = _newest(_config())
    with _connection(url) as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present != newest:
        raise SchemaError(f"the database is at revision {present}, this release needs {newest}; run `terraced migrate`")
    return newest


def differences(url: str) -> list[object]:
    """Return how the migrated schema differs from the tables: empty when they agree."""
    assert tables.__all__  # noqa: S101  importing the tables fills the metadata
    with _connection(url) as connection:
        return list(compare_metadata(MigrationContext.configure(connection), SQLModel.metadata))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _newest(config: Config) -> str:
    newest = ScriptDirectory.from_config(config).get_current_head()
    if newest is None:
        raise SchemaError("this installation has no migrations")
    return newest


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    if url.startswith(SQLITE_PREFIX):
        engine = sqlite.make_engine(Path(url.removeprefix(SQLITE_PREFIX)), is_writer=True)
    elif url.startswith(POSTGRES_PREFIX):
        engine = postgres.make_engine(url)
    else:
        raise ValueError(f"database_url: {url.split(':', 1)[0]!r} is neither sqlite:/// nor postgresql://")
    try:
        with engine.connect() as connection, _transaction(connection):
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """One transaction; another process that migrates the same database waits for its end."""
    if connection.dialect.name != "sqlite":
        with connection.begin():
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
            yield
        return
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")
