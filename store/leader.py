"""Who leads: one active scheduler by a row with a fencing epoch, any number standing by.

Owns the `leader` row. A holder renews within its term; another may take over when the term has passed, with the next epoch. Every
write of a leader carries its `Fence` and is refused with `StaleError` under an old epoch, in the same transaction, so that a paused
leader that wakes up late changes nothing. `stamp` also keeps the leader's times from going backwards across takeovers and clock steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store.errors import StaleError
from store.tables import Leader

_leader = Leader.__table__  # type: ignore[attr-defined]
_insert = {"sqlite": sqlite.insert(_leader).on_conflict_do_nothing(), "postgresql": postgresql.insert(_leader).on_conflict_do_nothing()}


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write as leader `name` in `epoch`."""

    name: str
    epoch: int

    def stamp(self, connection: Connection, now_ms: int) -> int:
        """Check the epoch and return a time that is not before any earlier stamp; StaleError when somebody else leads."""
        row = connection.execute(
            select(_leader.c.epoch, _leader.c.last_stamp_ms).where(_leader.c.name == self.name).with_for_update()
        ).first()
        if row is None or row.epoch != self.epoch:
            raise StaleError("not_leading", f"{self.name}: epoch {self.epoch} no longer leads", epoch=self.epoch)
        stamp_ms = max(now_ms, int(row.last_stamp_ms))
        if stamp_ms != row.last_stamp_ms:
            connection.execute(update(_leader).where(_leader.c.name == self.name).values(last_stamp_ms=stamp_ms))
        return stamp_ms


def _is_held_by_other(row: Any, holder: str, now_ms: int, term_ms: int) -> bool:
    """Tell whether somebody else leads and renewed within a term; a renewal far in the future was stamped by a clock that was put back."""
    return row.holder not in ("", holder) and abs(now_ms - row.renewed_at_ms) < term_ms


@dataclass(frozen=True, slots=True)
class MayLead:
    """Whether `TakeLead` would give the lead to `holder` now. Asked by those who stand by: asking writes nothing and wakes nobody."""

    name: str
    holder: str
    now_ms: int
    term_ms: int

    def fetch(self, connection: Connection, /) -> bool:
        """Return True when the lead is the holder's, free, or its term has passed."""
        row = connection.execute(select(_leader).where(_leader.c.name == self.name)).first()
        return row is None or not _is_held_by_other(row, self.holder, self.now_ms, self.term_ms)


@dataclass(frozen=True, slots=True)
class LastStamp:
    """The newest time that any leader stamped: decisions of a later one are made at this time or after it."""

    name: str

    def fetch(self, connection: Connection, /) -> int:
        """Return it, 0 when nobody ever led."""
        return int(connection.execute(select(_leader.c.last_stamp_ms).where(_leader.c.name == self.name)).scalar() or 0)


@dataclass(frozen=True, slots=True)
class TakeLead:
    """Renew the lead, or take it when nobody holds it or its term of `term_ms` has passed."""

    name: str
    holder: str
    now_ms: int
    term_ms: int

    def execute(self, connection: Connection, /) -> Fence | None:
        """Return the fence to write under, None while another holder leads."""
        fresh = {"name": self.name, "holder": "", "epoch": 0, "renewed_at_ms": 0, "last_stamp_ms": 0}
        connection.execute(_insert[connection.dialect.name], fresh)
        row = connection.execute(select(_leader).where(_leader.c.name == self.name).with_for_update()).one()
        if _is_held_by_other(row, self.holder, self.now_ms, self.term_ms):
            return None
        epoch = row.epoch if row.holder == self.holder else row.epoch + 1
        guard = and_(_leader.c.name == self.name, _leader.c.epoch == row.epoch)
        connection.execute(update(_leader).where(guard).values(holder=self.holder, epoch=epoch, renewed_at_ms=self.now_ms))
        return Fence(self.name, epoch)


@dataclass(frozen=True, slots=True)
class GiveUpLead:
    """Let another take over at once. Harmless when the lead is lost already."""

    fence: Fence

    def execute(self, connection: Connection, /) -> None:
        """Clear the holder under the own epoch."""
        guard = and_(_leader.c.name == self.fence.name, _leader.c.epoch == self.fence.epoch)
        connection.execute(update(_leader).where(guard).values(holder="", renewed_at_ms=0))
