"""What is forgotten when it is old: output of attempts, events, and what agents saw once it has been applied.

Owns the deletes, each bounded. Kept for ever: leases, usage lines and jobs, because invoices are recomputed from them, and events that tell
of a change by an operator (store/tables/records.py), because they are the audit and the scheduler counts them. How old is old is said by
whoever calls: api/upkeep.py. A batch deletes from the oldest end, so a round that finds nothing reads next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, func, select, tuple_

from domain import ids
from store.tables import Attempt, Event, LogChunk, Observation
from store.tables.records import CHANGES

LOG_BATCH_MAXIMUM = 200  # chunks, of tens of kilobytes
ROW_BATCH_MAXIMUM = 1_000

_chunk = LogChunk.__table__  # type: ignore[attr-defined]
_attempt = Attempt.__table__  # type: ignore[attr-defined]
_event = Event.__table__  # type: ignore[attr-defined]
_observation = Observation.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class PruneLogs:
    """Forget output of attempts that ended before `before_ms`, at most `LOG_BATCH_MAXIMUM` chunks."""

    before_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many chunks were forgotten."""
        key = (_chunk.c.job_id, _chunk.c.attempt, _chunk.c.start_offset)
        # Identifiers begin with their time: what was submitted later has not ended earlier, and the scan ends there.
        newest = ids.make("job", now_ms=self.before_ms, entropy=bytes(ids.ENTROPY_BYTES))
        of_attempt = and_(_attempt.c.job_id == _chunk.c.job_id, _attempt.c.number == _chunk.c.attempt)
        old = (
            select(*key)
            .join(_attempt, of_attempt)
            .where(_chunk.c.job_id < newest, _attempt.c.ended_at_ms < self.before_ms)
            .order_by(*key)
            .limit(LOG_BATCH_MAXIMUM)
        )
        return connection.execute(delete(_chunk).where(tuple_(*key).in_(old))).rowcount


@dataclass(frozen=True, slots=True)
class PruneEvents:
    """Forget events from before `before_ms` that tell of no change, from the oldest on, at most `ROW_BATCH_MAXIMUM`.

    The newest event stays whatever its age: SQLite would give its identifier to the next, and streams resume by it.
    """

    before_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many events were forgotten."""
        is_change = _event.c.kind.in_(CHANGES)
        oldest = select(_event.c.id, _event.c.at_ms).where(~is_change).order_by(_event.c.id).limit(ROW_BATCH_MAXIMUM).subquery()
        newest = select(func.max(_event.c.id)).scalar_subquery()
        old = select(oldest.c.id).where(oldest.c.at_ms < self.before_ms, oldest.c.id < newest)
        return connection.execute(delete(_event).where(_event.c.id.in_(old))).rowcount


@dataclass(frozen=True, slots=True)
class PruneObservations:
    """Forget observations applied before `before_ms`, at most `ROW_BATCH_MAXIMUM`. An agent repeats itself for hours, not for days."""

    before_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many observations were forgotten."""
        old = (
            select(_observation.c.id)
            .where(_observation.c.applied_at_ms < self.before_ms)
            .order_by(_observation.c.applied_at_ms)
            .limit(ROW_BATCH_MAXIMUM)
        )
        return connection.execute(delete(_observation).where(_observation.c.id.in_(old))).rowcount
