"""Raw SQL as commands and questions: how tests look at rows, and break them, past the store's own commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from store.engine import Store


@dataclass(frozen=True)
class Statement:
    """One statement as a command; returns how many rows it changed."""

    sql: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def execute(self, connection: Connection, /) -> int:
        """Run it."""
        return connection.execute(text(self.sql), self.values).rowcount


@dataclass(frozen=True)
class Rows:
    """One statement as a question; returns its rows."""

    sql: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def fetch(self, connection: Connection, /) -> list[tuple[Any, ...]]:
        """Run it."""
        return [tuple(row) for row in connection.execute(text(self.sql), self.values)]


def change(store: Store, sql: str, **values: Any) -> int:
    """Run a statement and return how many rows it changed."""
    return store.run_blocking(Statement(sql, values))


def rows(store: Store, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    return store.read_blocking(Rows(sql, values))
