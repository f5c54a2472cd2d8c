"""The output of attempts: read by offset. Writing it is store/agent_reports.py.

Offsets count bytes of output since the attempt began. A reader gets bytes from its offset on. While the attempt runs, a hole (a chunk that
has not arrived) ends the answer, so output is never seen out of order; after its end a hole is skipped, because nothing will fill it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from store.errors import NotFoundError
from store.tables import Attempt, Job, LogChunk

CHUNKS_MAXIMUM = 64

_chunk = LogChunk.__table__  # type: ignore[attr-defined]
_attempt = Attempt.__table__  # type: ignore[attr-defined]
_job = Job.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class LogPart:
    """Output of one attempt from `offset` on. `is_complete` when the attempt has ended and nothing is left after `next_offset`."""

    attempt: int
    data: bytes
    next_offset: int
    is_complete: bool
    state: str  # of the job


@dataclass(frozen=True, slots=True)
class ReadLog:
    """A part of a job's output. `attempt` None is the newest one; `tenant_id` narrows to jobs of that tenant."""

    job_id: str
    tenant_id: str | None
    attempt: int | None = None
    offset: int = 0

    def fetch(self, connection: Connection, /) -> LogPart:
        """Return at most `CHUNKS_MAXIMUM` chunks' bytes; NotFoundError for the job or the attempt."""
        job = connection.execute(
            select(_job.c.tenant_id, _job.c.state, _job.c.attempt, _job.c.ended_at_ms).where(_job.c.id == self.job_id)
        ).first()
        if job is None or self.tenant_id not in (None, job.tenant_id):
            raise NotFoundError("job_not_found", f"there is no job {self.job_id!r}", field="job")
        number = job.attempt if self.attempt is None else self.attempt
        if number == 0:  # nothing has run yet
            return LogPart(0, b"", self.offset, job.ended_at_ms is not None, job.state)
        ended = select(_attempt.c.ended_at_ms).where(_attempt.c.job_id == self.job_id, _attempt.c.number == number)
        attempt = connection.execute(ended).first()
        if attempt is None:
            raise NotFoundError("attempt_not_found", f"job {self.job_id!r} has no attempt {number}", field="attempt")
        has_ended = attempt.ended_at_ms is not None
        data, next_offset, is_more = self._bytes(connection, number, has_ended=has_ended)
        return LogPart(number, data, next_offset, has_ended and not is_more, job.state)

    def _bytes(self, connection: Connection, number: int, *, has_ended: bool) -> tuple[bytes, int, bool]:
        mine = (_chunk.c.job_id == self.job_id, _chunk.c.attempt == number)
        first = select(func.max(_chunk.c.start_offset)).where(*mine, _chunk.c.start_offset <= self.offset).scalar_subquery()
        statement = (
            select(_chunk.c.start_offset, _chunk.c.data)
            .where(*mine, _chunk.c.start_offset >= func.coalesce(first, 0))
            .order_by(_chunk.c.start_offset)
            .limit(CHUNKS_MAXIMUM + 1)
        )
        parts: list[bytes] = []
        reached = self.offset
        rows = connection.execute(statement).all()
        for start_offset, data in rows[:CHUNKS_MAXIMUM]:
            if start_offset > reached:
                if not has_ended:
                    return b"".join(parts), reached, False
                reached = start_offset
            fresh = bytes(data)[reached - start_offset :]
            parts.append(fresh)
            reached += len(fresh)
        return b"".join(parts), reached, len(rows) > CHUNKS_MAXIMUM
