"""What a change and a question to the store look like.

A command is a frozen dataclass with `execute(transaction)`; `store.run(command)` is the only way to write. Its result is
returned after the commit is durable, its exception is raised after its savepoint was rolled back and leaves the
other commands of the group alone. A query is the same with `fetch(connection)` and never writes. Commands must be
deterministic given the rows: times and identifiers are made by the caller and carried as fields.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from sqlalchemy import Connection

T_co = TypeVar("T_co", covariant=True)


class Command(Protocol[T_co]):
    """A change. `execute` runs inside a transaction that commits when it returns and rolls back when it raises."""

    def execute(self, connection: Connection, /) -> T_co:
        """Change rows and return the answer; raise a `store.errors.RefusalError` to refuse, changing nothing."""
        ...


class Query(Protocol[T_co]):
    """A question. `fetch` sees one consistent state of the database.

    A class that sets `is_consistent = False` sees with each statement what was committed before it, where the database can (PostgreSQL).
    """

    def fetch(self, connection: Connection, /) -> T_co:
        """Read rows and return plain values, never tables."""
        ...
