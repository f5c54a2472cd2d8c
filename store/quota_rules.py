"""The rules of a tenant or project in the quota tree: preemption, choice among flavors, the cap of one user.

Owns the rule columns of `quota_node`. A project whose rules are all the defaults follows its tenant's (quotas/tree.py). Cohorts have none:
Kueue's policies belong to those who run jobs. What the words mean is docs/guides/scheduling.md. Called by api and by quota_import.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from quotas.tree import BorrowPreempt
from scheduler.decision.snapshot import Policy
from store import calendar, operator_events, policy, quotas
from store.errors import ConflictError
from store.tables import QuotaNode

RULES = (
    "within_tenant", "reclaim_within_cohort", "borrow_within_cohort", "borrow_max_priority", "when_can_borrow", "when_can_preempt",
    "user_cap_milli_gpu",
)  # fmt: skip

_place = QuotaNode.__table__  # type: ignore[attr-defined]
_columns = [_place.c[name] for name in RULES]


@dataclass(frozen=True, slots=True)
class RulesView:
    """The rules of a tenant, or of a project of it. `user_cap_milli_gpu` None: no cap; `borrow_max_priority` None: no threshold."""

    tenant: str
    project: str | None
    within_tenant: str
    reclaim_within_cohort: str
    borrow_within_cohort: str
    borrow_max_priority: int | None
    when_can_borrow: str
    when_can_preempt: str
    user_cap_milli_gpu: int | None


@dataclass(frozen=True, slots=True)
class SetRules:
    """Change the rules that `changes` names; the others stay. `base` is the installation's policy."""

    tenant: str
    project: str | None
    changes: Mapping[str, Any]
    base: Policy
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> RulesView:
        """Return the rules as they are now; NotFoundError, ConflictError for preemption while borrowing beside fair sharing."""
        place = quotas.find_place(connection, self.tenant, self.project, None)
        wanted = self.changes.get("borrow_within_cohort", BorrowPreempt.NEVER.value)
        if wanted != BorrowPreempt.NEVER.value:
            policy.take_turn(connection)
            if calendar.read_policy(connection, self.base).fair_sharing:
                message = "borrow_within_cohort: cannot be other than never while fair_sharing is on in the policy"
                raise ConflictError("borrows_with_fair_sharing", message, field="borrow_within_cohort")
        before = connection.execute(select(*_columns).where(_place.c.id == place.id)).one()
        changed = {name: self.changes[name] for name in RULES if name in self.changes and self.changes[name] != getattr(before, name)}
        if changed:
            connection.execute(update(_place).where(_place.c.id == place.id).values(**changed))
            named = {"tenant": self.tenant} | ({} if self.project is None else {"project": self.project})
            operator_events.record(
                connection, operator_events.QUOTA_CHANGED, {**named, **changed},
                now_ms=self.now_ms, user_id=self.user_id, tenant_id=place.tenant_id,
            )  # fmt: skip
        row = connection.execute(select(*_columns).where(_place.c.id == place.id)).one()
        return RulesView(self.tenant, self.project, *row)
