"""What other processes changed since the scheduler looked last: jobs that came or were cancelled, and whether quotas or nodes moved.

Owns which events tell of a job that the scheduler did not change itself. Rows are read after by what is named here, so an event that is
told twice does no harm. Only settled events are told (store/events.py): nothing can appear below the cursor any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Connection, select

from store import events, marks
from store.tables import Event

EVENTS_MAXIMUM = 100_000  # told at once; the rest next time
JOB_KINDS = ("job_submitted", "job_cancel_requested", "job_cancelled")

_event = Event.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class News:
    """`cursor`: where the next look begins. `job_ids`: in the order of the events, each once."""

    cursor: int
    job_ids: tuple[str, ...]
    terms_mark: str
    fleet_mark: str


@dataclass(frozen=True, slots=True)
class NewsAfter:
    """What happened after the event `cursor`."""

    is_consistent: ClassVar[bool] = False  # the open transactions are asked for first, the rows are read after

    cursor: int

    def fetch(self, connection: Connection, /) -> News:
        """Return it."""
        settled = max(events.settled(connection), self.cursor)
        told = (_event.c.id > self.cursor, _event.c.id <= settled, _event.c.kind.in_(JOB_KINDS))
        statement = select(_event.c.id, _event.c.job_id).where(*told).order_by(_event.c.id).limit(EVENTS_MAXIMUM)
        rows = connection.execute(statement).all()
        cursor = rows[-1].id if len(rows) == EVENTS_MAXIMUM else settled
        job_ids = tuple(dict.fromkeys(row.job_id for row in rows))
        return News(cursor, job_ids, marks.of_terms(connection), marks.of_fleet(connection))
