"""The operator's policy: what it is now, and changing it field by field.

Owns the writing of the row that store/calendar.py reads. Fields that nobody chose have the values of the installation, which the caller
passes as `base`. What single fields may hold is checked at the edge (terrace/models/scheduling.py); here only what other rows decide: fair
sharing excludes preemption while borrowing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects import postgresql, sqlite

from quotas.tree import BorrowPreempt
from scheduler.decision.snapshot import Policy
from store import calendar, operator_events
from store.errors import ConflictError, InvalidError
from store.tables import QuotaNode, SchedulingPolicy

NAMED_MAXIMUM = 5  # tenants that a refusal names

_policy = SchedulingPolicy.__table__  # type: ignore[attr-defined]
_place = QuotaNode.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class PolicyView:
    """Every field as it is in force, and the names of those that an operator chose."""

    fields: Mapping[str, Any]
    chosen: tuple[str, ...]
    set_at_ms: int | None


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """The policy in force. `base` is the installation's."""

    base: Policy

    def fetch(self, connection: Connection, /) -> PolicyView:
        """Return it."""
        row = connection.execute(select(_policy.c.choices, _policy.c.set_at_ms).where(_policy.c.name == calendar.POLICY_NAME)).first()
        choices = {} if row is None else json.loads(row.choices)
        return _view(self.base, choices, None if row is None else row.set_at_ms)


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Change fields; None gives a field back its value of the installation. What is not among `changes` stays."""

    base: Policy
    changes: Mapping[str, Any]
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> PolicyView:
        """Return the policy as it is now; InvalidError for an unknown field, ConflictError for fair sharing beside what it excludes."""
        unknown = sorted(self.changes.keys() - set(calendar.CHOICES))
        if unknown:
            message = f"{unknown[0]}: there is no such choice; there are {', '.join(calendar.CHOICES)}"
            raise InvalidError("invalid_request", message, field=unknown[0], limit=list(calendar.CHOICES))
        take_turn(connection)
        row = connection.execute(select(_policy.c.choices).where(_policy.c.name == calendar.POLICY_NAME)).first()
        before = {} if row is None else json.loads(row.choices)
        after = {name: value for name, value in {**before, **self.changes}.items() if value is not None}
        policy = calendar.with_choices(self.base, after)
        if policy.fair_sharing and not calendar.with_choices(self.base, before).fair_sharing:
            _check_nobody_borrows_by_force(connection)
        changed = {name: getattr(policy, name) for name in self.changes if after.get(name) != before.get(name)}
        if not changed:
            return ReadPolicy(self.base).fetch(connection)
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        values = {"choices": json.dumps(after, sort_keys=True, separators=(",", ":")), "set_at_ms": self.now_ms}
        statement = insert(_policy).values(name=calendar.POLICY_NAME, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=[_policy.c.name], set_=values))
        operator_events.record(connection, operator_events.POLICY_CHANGED, changed, now_ms=self.now_ms, user_id=self.user_id)
        return _view(self.base, after, self.now_ms)


def take_turn(connection: Connection) -> None:
    """Let nobody else change the policy, or what it excludes, until this transaction ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(text("LOCK TABLE scheduling_policy IN SHARE ROW EXCLUSIVE MODE"))


def _view(base: Policy, choices: Mapping[str, Any], set_at_ms: int | None) -> PolicyView:
    policy = calendar.with_choices(base, dict(choices))
    chosen = tuple(name for name in calendar.CHOICES if name in choices)
    return PolicyView({name: getattr(policy, name) for name in calendar.CHOICES}, chosen, set_at_ms)


def _check_nobody_borrows_by_force(connection: Connection) -> None:
    statement = select(_place.c.name).where(_place.c.borrow_within_cohort != BorrowPreempt.NEVER.value).order_by(_place.c.name)
    names = list(connection.execute(statement).scalars())
    if names:
        shown = ", ".join(names[:NAMED_MAXIMUM]) + (", …" if len(names) > NAMED_MAXIMUM else "")
        message = f"fair_sharing: cannot be on while borrow_within_cohort is other than never, as it is of {shown}"
        raise ConflictError("borrows_with_fair_sharing", message, field="fair_sharing", nodes=len(names))
