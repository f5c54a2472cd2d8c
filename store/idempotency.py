"""Creating requests that may be sent twice and are done once.

Owns the rows of `idempotency_record`. `OnceOnly` wraps a command: the answer is stored in the same transaction as the change, so a
repeated request gets the first answer and changes nothing. It does not parse headers or make problems; api/replays.py does.
Two requests with one key that race on PostgreSQL: the second to insert rolls back with `StaleError` and is tried again by its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection, bindparam, delete, select

from store import hot
from store.commands import Command
from store.errors import ConflictError, StaleError
from store.tables import IdempotencyRecord

RETENTION_MS = 24 * 3_600_000
PRUNE_BATCH_MAXIMUM = 1_000

T = TypeVar("T")

_record = IdempotencyRecord.__table__  # type: ignore[attr-defined]
_find = hot.HotStatement(
    ("user_id", "key"),
    lambda _: select(_record.c.route, _record.c.body_sha256, _record.c.status, _record.c.response).where(
        _record.c.user_id == bindparam("user_id"), _record.c.key == bindparam("key")
    ),
)
_insert = hot.insert_into(_record, ("user_id", "key", "route", "body_sha256", "status", "response", "created_at_ms"), is_repeatable=True)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to give: HTTP status and JSON text. `is_replayed` when it was stored by an earlier request."""

    status: int
    body: str
    is_replayed: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A first answer. `repeated` is what a repetition gets when the first answer may be shown once only (secrets)."""

    status: int
    body: str
    repeated: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class OnceOnly(Generic[T]):
    """Run `command` unless (user, key) already has an answer; without a key it just runs.

    Raises ConflictError `idempotency_key_reused` when the key came with another route or body before.
    """

    command: Command[T]
    render: Callable[[T], Rendered]
    user_id: str
    key: str | None
    route: str
    body_sha256: str
    now_ms: int

    def execute(self, connection: Connection, /) -> Answered:
        """Return the first answer to this key, made now or earlier."""
        if self.key is None:
            rendered = self.render(self.command.execute(connection))
            return Answered(rendered.status, rendered.body)
        earlier = _find.run(connection, (self.user_id, self.key)).fetchone()
        if earlier is not None:
            return self._replay(*earlier)
        rendered = self.render(self.command.execute(connection))
        self._remember(connection, rendered)
        return Answered(rendered.status, rendered.body)

    def _replay(self, route: str, body_sha256: str, status: int, response: str) -> Answered:
        if (route, body_sha256) != (self.route, self.body_sha256):
            raise ConflictError(
                "idempotency_key_reused", "Idempotency-Key was used before with another route or body", field="Idempotency-Key", route=route
            )
        return Answered(status, response, is_replayed=True)

    def _remember(self, connection: Connection, rendered: Rendered) -> None:
        status, response = rendered.repeated or (rendered.status, rendered.body)
        row = (self.user_id, self.key, self.route, self.body_sha256, status, response, self.now_ms)
        if _insert.run(connection, row).rowcount != 1:
            raise StaleError("idempotency_race", "another request with this Idempotency-Key was faster")


@dataclass(frozen=True, slots=True)
class PruneRecords:
    """Forget answers older than `RETENTION_MS`, at most `PRUNE_BATCH_MAXIMUM` at a time."""

    now_ms: int

    def execute(self, connection: Connection, /) -> int:
        """Return how many records were forgotten."""
        old = (
            select(_record.c.user_id, _record.c.key)
            .where(_record.c.created_at_ms < self.now_ms - RETENTION_MS)
            .order_by(_record.c.created_at_ms)
            .limit(PRUNE_BATCH_MAXIMUM)
        )
        keys = [{"user": row[0], "sent": row[1]} for row in connection.execute(old)]
        if keys:
            statement = delete(_record).where(_record.c.user_id == bindparam("user"), _record.c.key == bindparam("sent"))
            connection.execute(statement, keys)
        return len(keys)
