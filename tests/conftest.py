"""Databases for every test that asks: a migrated SQLite file or PostgreSQL database of its own.

`database_url`, `store` and `service_database_url` run the test on both; `sqlite_url` and `postgres_url` on one. Without a PostgreSQL server
the PostgreSQL half is skipped with the reason on a person's machine and fails in CI (`CI` set), where silence would look like success.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import migrate
from store.engine import Store
from tests.support import databases
from tests.support.databases import PostgresServer

TESTS = Path(__file__).parent
OF_THE_MACHINE = ("agents", "e2e", "sandbox")
TEMPLATE = "terrace_template"
both_databases = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy from."""
    path = tmp_path_factory.mktemp("template") / "terrace.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    path = tmp_path / "terrace.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that the tests share, with a migrated database to copy from. Nobody stops it or kills its processes."""
    try:
        with databases.running_server(databases.FAST) as server:
            migrate.upgrade(server.create_database(TEMPLATE))
            yield server
    except databases.NoServerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no PostgreSQL server: {error}")
        pytest.skip(f"no PostgreSQL server: {error}")


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name, template=TEMPLATE)
    postgres_server.drop_database(name)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database without a schema."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A durable server of the test's own, which it may kill."""
    try:
        with databases.running_server() as server:
            yield server
    except databases.NoServerError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no PostgreSQL server: {error}")
        pytest.skip(f"no PostgreSQL server: {error}")


@pytest.fixture(params=both_databases)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own, on each kind of database."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(params=both_databases)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema, on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture(params=both_databases)
def service_database_url(request: pytest.FixtureRequest) -> str | None:
    """What a whole service is started with: nothing (SQLite in its state directory), or a PostgreSQL database that it has to migrate."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An open store on each kind of database."""
    opened = Store.open(database_url)
    yield opened
    opened.close()


@pytest.hookimpl(tryfirst=True)  # before the workers read the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let two workers share the suite: what looks at the whole machine (processes, users, ports) stays together on one, in order."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(pytest.mark.xdist_group("machine" if folder in OF_THE_MACHINE else str(item.path)))
