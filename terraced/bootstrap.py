"""What must be there before the first process serves: a migrated schema, seeds, the first operator, the embedded node and their keys.

Every step adds what is missing and changes nothing that is there, so it runs at every start. Key files are readable by their owner only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from api import bootstrap as keys
from store import migrate
from store.engine import Store
from store.errors import ConflictError
from store.fleet import CreateNode
from store.seed import Seed
from terraced import clock, preflight
from terraced.settings import Settings


def prepare_schema(settings: Settings) -> None:
    """Bring the schema to this release; NotReadyError names the setting when the database cannot be used."""
    with _database(settings):
        migrate.upgrade(settings.effective_database_url)


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[None]:
    """Say in one sentence what is wrong with the database, whoever raised it."""
    try:
        yield
    except (migrate.SchemaError, ValueError) as error:
        raise preflight.NotReadyError("database_url", str(error)) from error
    except Exception as error:  # drivers raise many kinds; at this point each means the same to the person who typed the command
        raise preflight.NotReadyError("database_url", f"the database cannot be used: {_first_line(error)}") from error


def check_schema(settings: Settings) -> None:
    """Refuse a database that is not at this release's schema; NotReadyError says what to do."""
    with _database(settings):
        migrate.check(settings.effective_database_url)


def prepare_database(settings: Settings, *, is_migrated: bool = False) -> bool:
    """Bring the schema to this release (`is_migrated`: only check it), add seeds and, where there is none, the first operator.

    Return whether the operator is new and the key file with it.
    """
    (check_schema if is_migrated else prepare_schema)(settings)
    store = Store.open(settings.effective_database_url)
    try:
        store.run_blocking(Seed(clock.now_ms()))
        return keys.first_operator(store, settings.operator_key_path)
    finally:
        store.close()


def prepare_embedded_node(settings: Settings) -> None:
    """Make this machine's node and its key."""
    store = Store.open(settings.effective_database_url)
    try:
        with contextlib.suppress(ConflictError):  # an earlier start made it
            store.run_blocking(CreateNode(clock.new_id("nod"), settings.node_name, settings.site, None, clock.now_ms()))
        keys.node_key(store, settings.node_key_path, node=settings.node_name)
    finally:
        store.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
