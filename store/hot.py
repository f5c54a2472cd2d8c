"""Statements of the hot paths, compiled once and run on the driver.

SQLAlchemy's own execution costs three times what SQLite needs for a small insert. A `HotStatement` is built from a Core statement, so that
names stay those of the tables, and then runs its text with positional values: no result types, no value processors, and driver errors as
they are. For inserts, updates and point reads in the intake; everything calm uses Core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ClauseElement, Connection, Dialect, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import BindTyping

_DIALECTS: dict[str, Dialect] = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect(paramstyle="format")}  # type: ignore[no-untyped-call]
for _dialect in _DIALECTS.values():
    _dialect.bind_typing = BindTyping.NONE  # the driver knows Python's types; casts in the text would only narrow them


class HotStatement:
    """A statement with positional values, in the order of `parameters`."""

    def __init__(self, parameters: Sequence[str], build: Callable[[str], ClauseElement]) -> None:
        """`build` returns the statement for a dialect's name; ValueError unless it takes exactly these parameters in this order."""
        self._texts: dict[str, str] = {}
        for name, dialect in _DIALECTS.items():
            compiled: Any = build(name).compile(dialect=dialect)
            if list(compiled.positiontup or ()) != list(parameters):
                raise ValueError(f"parameters: the statement takes {compiled.positiontup}, not {list(parameters)}")
            self._texts[name] = str(compiled)

    def run(self, connection: Connection, values: Sequence[object]) -> Any:
        """Execute once; return the driver's cursor."""
        cursor = _cursor(connection)
        cursor.execute(self._texts[connection.dialect.name], values)
        return cursor

    def run_many(self, connection: Connection, rows: Sequence[Sequence[object]]) -> None:
        """Execute for every row."""
        _cursor(connection).executemany(self._texts[connection.dialect.name], rows)


def insert_into(table: Table, columns: Sequence[str], *, is_repeatable: bool = False) -> HotStatement:
    """Return an insert of these columns; with `is_repeatable`, a row that is there already is left alone."""

    def build(dialect: str) -> ClauseElement:
        insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[dialect]
        statement = insert(table).values({name: bindparam(name) for name in columns}).inline()
        found: ClauseElement = statement.on_conflict_do_nothing() if is_repeatable else statement
        return found

    return HotStatement(columns, build)


def broken_constraint(connection: Connection) -> type[Exception]:
    """Return what these statements raise when a constraint refuses."""
    found: type[Exception] = connection.dialect.loaded_dbapi.IntegrityError
    return found


def _cursor(connection: Connection) -> Any:
    driver: Any = connection.connection.driver_connection
    return driver.cursor()
