"""All rows of a small database at once, for rules that look at them from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlmodel import SQLModel

from store import tables

Row = Any  # a row of SQLAlchemy: its columns are attributes


@dataclass(frozen=True)
class RowsOf:
    """Rows by table, in order of key: `rows.lease`, `rows.device_claim`."""

    by_table: dict[str, Sequence[Row]]

    @classmethod
    def read(cls, connection: Connection) -> RowsOf:
        """Read every table."""
        assert tables.__all__
        known = SQLModel.metadata.tables
        return cls({name: connection.execute(select(table).order_by(*table.primary_key.columns)).all() for name, table in known.items()})

    def __getattr__(self, name: str) -> Sequence[Row]:
        try:
            return self.by_table[name]
        except KeyError:
            raise AttributeError(name) from None
