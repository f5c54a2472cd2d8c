"""Which archives a tenant has uploaded. The bytes lie in files beside the database; api/archives.py owns those.

A row is written after its file is durable, so a row without a file cannot be. Archives are private: the same bytes of two tenants are two.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from store.tables import Blob

_blob = Blob.__table__  # type: ignore[attr-defined]
_insert = {"sqlite": sqlite.insert(_blob).on_conflict_do_nothing(), "postgresql": postgresql.insert(_blob).on_conflict_do_nothing()}


@dataclass(frozen=True, slots=True)
class RecordArchive:
    """Remember an uploaded archive; again changes nothing."""

    tenant_id: str
    sha256: str
    size_bytes: int
    now_ms: int

    def execute(self, connection: Connection, /) -> None:
        """Write the row."""
        values = {"tenant_id": self.tenant_id, "sha256": self.sha256, "size_bytes": self.size_bytes, "created_at_ms": self.now_ms}
        connection.execute(_insert[connection.dialect.name], values)


@dataclass(frozen=True, slots=True)
class ArchiveSize:
    """The size of an archive of a tenant."""

    tenant_id: str
    sha256: str

    def fetch(self, connection: Connection, /) -> int | None:
        """Return the bytes, None when the tenant has no such archive."""
        statement = select(_blob.c.size_bytes).where(_blob.c.tenant_id == self.tenant_id, _blob.c.sha256 == self.sha256)
        found: int | None = connection.execute(statement).scalar_one_or_none()
        return found
