from __future__ import annotations

import threading

import pytest

from store import migrate
from store.engine import Store
from tests.support.statements import change, rows


def test_empty_database_gets_the_newest_schema(empty_database_url: str) -> None:
    revision = migrate.upgrade(empty_database_url)
    assert migrate.check(empty_database_url) == revision
    assert migrate.differences(empty_database_url) == []


def test_second_upgrade_changes_nothing(database_url: str) -> None:
    store = Store.open(database_url)
    change(store, "INSERT INTO quota_node (id, kind, name, weight_milli) VALUES ('q', 'cohort', 'q', 1000)")
    migrate.upgrade(database_url)
    assert rows(store, "SELECT id FROM quota_node") == [("q",)]
    store.close()


def test_two_processes_that_start_together_migrate_once(empty_database_url: str) -> None:
    revisions: list[str] = []
    threads = [threading.Thread(target=lambda: revisions.append(migrate.upgrade(empty_database_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert revisions == [migrate.check(empty_database_url)] * 4


@pytest.mark.parametrize("step", [migrate.upgrade, migrate.check], ids=["upgrade", "check"])
def test_schema_of_a_newer_release_is_refused_and_left_alone(database_url: str, step: object) -> None:
    store = Store.open(database_url)
    change(store, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrate.SchemaError, match="revision 9999"):
        step(database_url)  # type: ignore[operator]
    assert rows(store, "SELECT version_num FROM alembic_version") == [("9999",)]
    store.close()
