"""Which archives a tenant has uploaded, how much it may keep, and which of them nobody needs any more.

The bytes lie in files beside the database; api/archives.py owns those. A row is written after its file is durable and deleted before its
file is, so a row without a file cannot be. Archives are private: the same bytes of two tenants are two. An archive is needed while a job
that names it has not ended, and for a time after that. Finding out which are not reads all jobs, so it is a question of its own, and the
command that deletes looks again at the newest jobs only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, func, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from store.errors import ConflictError
from store.tables import Blob, Job, Tenant

UNUSED_MAXIMUM = 500  # that one round forgets
SEQ_MARGIN = 100_000  # on PostgreSQL the order of arrival is not the order of commit; more jobs are never on their way at once

_blob = Blob.__table__  # type: ignore[attr-defined]
_job = Job.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_insert = {"sqlite": sqlite.insert(_blob).on_conflict_do_nothing(), "postgresql": postgresql.insert(_blob).on_conflict_do_nothing()}


@dataclass(frozen=True, slots=True)
class Room:
    """What one tenant may keep."""

    bytes_maximum: int
    archives_maximum: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a tenant keeps now."""

    size_bytes: int
    archives: int

    def check(self, room: Room, size_bytes: int) -> None:
        """Refuse one more archive of `size_bytes` that does not fit; ConflictError names the limit."""
        for name, wanted, maximum in (
            ("bytes_per_tenant_maximum", self.size_bytes + size_bytes, room.bytes_maximum),
            ("archives_per_tenant_maximum", self.archives + 1, room.archives_maximum),
        ):
            if wanted > maximum:
                message = (
                    f"the tenant's archives would come to {wanted}, and {name} is {maximum}; those that no job needs are deleted in time"
                )
                raise ConflictError("archive_quota_exceeded", message, field="sha256", limit=maximum)


@dataclass(frozen=True, slots=True)
class KeptArchives:
    """How much a tenant keeps."""

    tenant_id: str

    def fetch(self, connection: Connection, /) -> Kept:
        """Return it."""
        statement = select(func.coalesce(func.sum(_blob.c.size_bytes), 0), func.count()).where(_blob.c.tenant_id == self.tenant_id)
        size_bytes, archives = connection.execute(statement).one()
        return Kept(int(size_bytes), archives)


@dataclass(frozen=True, slots=True)
class RecordArchive:
    """Remember an uploaded archive; again changes nothing. ConflictError when the tenant has no room for it."""

    tenant_id: str
    sha256: str
    size_bytes: int
    now_ms: int
    room: Room | None = None  # None: as much as there is

    def execute(self, connection: Connection, /) -> None:
        """Write the row."""
        # Locked, so that two uploads at once are counted one after the other.
        connection.execute(select(_tenant.c.id).where(_tenant.c.id == self.tenant_id).with_for_update(key_share=True))
        if ArchiveSize(self.tenant_id, self.sha256).fetch(connection) is not None:
            return
        if self.room is not None:
            KeptArchives(self.tenant_id).fetch(connection).check(self.room, self.size_bytes)
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


@dataclass(frozen=True, slots=True)
class KnownArchives:
    """Which of these (tenant identifier, SHA-256) have a row."""

    named: Sequence[tuple[str, str]]

    def fetch(self, connection: Connection, /) -> set[tuple[str, str]]:
        """Return those."""
        key = (_blob.c.tenant_id, _blob.c.sha256)
        return {(row[0], row[1]) for row in connection.execute(select(*key).where(tuple_(*key).in_(list(self.named))))}


@dataclass(frozen=True, slots=True)
class Unused:
    """Archives (tenant identifier, SHA-256) that nobody needed, and the newest job that was asked for it."""

    named: tuple[tuple[str, str], ...]
    newest_seq: int


@dataclass(frozen=True, slots=True)
class UnusedArchives:
    """Archives that were uploaded before `before_ms` and that no job names which has not ended, or ended after it. Reads all jobs."""

    before_ms: int

    def fetch(self, connection: Connection, /) -> Unused:
        """Return at most `UNUSED_MAXIMUM`, the oldest first."""
        newest_seq = connection.execute(select(func.coalesce(func.max(_job.c.seq), 0))).scalar_one()
        is_needed = or_(_job.c.ended_at_ms.is_(None), _job.c.ended_at_ms >= self.before_ms)
        needed = (
            select(_job.c.tenant_id, _job.c.archive_sha256).where(_job.c.archive_sha256.is_not(None), is_needed).distinct().cte("needed")
        )
        same = and_(needed.c.tenant_id == _blob.c.tenant_id, needed.c.archive_sha256 == _blob.c.sha256)
        statement = (
            select(_blob.c.tenant_id, _blob.c.sha256)
            .select_from(_blob.outerjoin(needed, same))
            .where(_blob.c.created_at_ms < self.before_ms, needed.c.tenant_id.is_(None))
            .order_by(_blob.c.created_at_ms, _blob.c.sha256)
            .limit(UNUSED_MAXIMUM)
        )
        return Unused(tuple((row[0], row[1]) for row in connection.execute(statement)), newest_seq)


@dataclass(frozen=True, slots=True)
class ForgetArchives:
    """Forget unused archives, but for those that a job has named since they were found."""

    unused: Unused

    def execute(self, connection: Connection, /) -> list[tuple[str, str]]:
        """Return those that were forgotten; their files may go now."""
        if not self.unused.named:
            return []
        key = (_blob.c.tenant_id, _blob.c.sha256)
        # A submit that names one of them holds its row until it has committed, so what it did is seen by the question after the lock.
        locked = select(*key).where(tuple_(*key).in_(list(self.unused.named))).order_by(*key).with_for_update()
        found = {(row[0], row[1]) for row in connection.execute(locked)}
        since = and_(_job.c.seq > self.unused.newest_seq - SEQ_MARGIN, _job.c.ended_at_ms.is_(None))
        recent = select(_job.c.tenant_id, _job.c.archive_sha256).where(since, _job.c.archive_sha256.is_not(None)).distinct()
        gone = sorted(found - {(row[0], row[1]) for row in connection.execute(recent)})
        if gone:
            connection.execute(delete(_blob).where(tuple_(*key).in_(gone)))
        return gone
