"""Rows -> the quota tree of one moment, without usage: what the scheduler charges and what a submit is bounded by.

Owns which row is in force (of those that cover the moment, the newest) and which node a job charges: its project where any project of its
tenant has quotas of its own, else its tenant. The arithmetic is quotas/tree.py. Called by store/scheduling.py, store/catalog.py and api.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from quotas.amount import Amount
from quotas.tree import (
    BorrowPreempt,
    Fungibility,
    NodeKind,
    Preemption,
    PreemptWithin,
    Quota,
    QuotaNode,
    Reclaim,
    Tree,
    WhenCanBorrow,
    WhenCanPreempt,
)
from store import tables

_place = tables.QuotaNode.__table__  # type: ignore[attr-defined]
_quota = tables.Quota.__table__  # type: ignore[attr-defined]


def read(connection: Connection, now_ms: int, *, only: Collection[str] | None = None) -> Tree:
    """Return the whole tree, or `only` the named nodes, which must not lack a parent among them."""
    in_force = and_(_quota.c.valid_from_ms <= now_ms, or_(_quota.c.valid_until_ms.is_(None), _quota.c.valid_until_ms > now_ms))
    rows = select(_quota).where(in_force).order_by(_quota.c.valid_from_ms, _quota.c.created_at_ms, _quota.c.id)
    places = select(_place).order_by(_place.c.id)
    if only is not None:
        rows = rows.where(_quota.c.quota_node_id.in_(sorted(only)))
        places = places.where(_place.c.id.in_(sorted(only)))
    quotas: dict[str, dict[str, Quota]] = {}
    for row in connection.execute(rows):  # later rows of the order replace earlier ones
        quotas.setdefault(row.quota_node_id, {})[row.resource] = Quota(
            Amount(row.nominal),
            Amount(row.borrowing_limit) if row.borrowing_limit is not None else None,
            Amount(row.lending_limit) if row.lending_limit is not None else None,
        )
    nodes = connection.execute(places).all()
    # Jobs are charged at leaves: where one project has quotas, its tenant is an inner node and each of its projects a leaf.
    divided = {row.parent_id for row in nodes if row.kind == NodeKind.PROJECT and row.id in quotas}
    return Tree(_node_of(row, quotas.get(row.id, {})) for row in nodes if row.kind != NodeKind.PROJECT or row.parent_id in divided)


def _node_of(row: Any, quotas: Mapping[str, Quota]) -> QuotaNode:
    """Return a row as a node of the tree."""
    preemption = Preemption(
        PreemptWithin(row.within_tenant),
        Reclaim(row.reclaim_within_cohort),
        BorrowPreempt(row.borrow_within_cohort),
        row.borrow_max_priority,
    )
    return QuotaNode(
        row.id,
        NodeKind(row.kind),
        row.parent_id,
        Fraction(row.weight_milli, 1_000),
        quotas,
        preemption,
        Fungibility(WhenCanBorrow(row.when_can_borrow), WhenCanPreempt(row.when_can_preempt)),
        None if row.user_cap_milli_gpu is None else Amount(row.user_cap_milli_gpu),
    )


def leaf(tree: Tree, tenant_id: str, project_id: str) -> str:
    """Return the quota node that a job charges: its project where its tenant's quota is divided among projects, else its tenant."""
    return project_id if project_id in tree else tenant_id
