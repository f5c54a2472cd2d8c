"""What operators change, as events in the transaction of the change: for audit, for streams, and to wake the scheduler.

Owns their shape. The scheduler reads its terms or its fleet anew when it sees one (store/marks.py says which). An event that concerns one
tenant carries it and shows in that tenant's stream; the others are for operators. Data names what changed, what it is now and who did
it; never a secret. Called by the store's commands that operators' routes run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert

from store.tables import Event

QUOTA_CHANGED = "quota_changed"
COHORT_CHANGED = "cohort_changed"
TENANT_CHANGED = "tenant_changed"
POLICY_CHANGED = "policy_changed"
RESERVATION_CHANGED = "reservation_changed"
MAINTENANCE_CHANGED = "maintenance_changed"
NODE_CHANGED = "node_changed"

_event = Event.__table__  # type: ignore[attr-defined]


def record(
    connection: Connection,
    kind: str,
    data: Mapping[str, Any],
    *,
    now_ms: int,
    user_id: str | None,
    tenant_id: str | None = None,
    node_id: str | None = None,
) -> None:
    """Add an event. `user_id` None: no person did it, the installation itself did."""
    text = json.dumps({**data, "user_id": user_id}, sort_keys=True, separators=(",", ":"))
    values = {"at_ms": now_ms, "kind": kind, "tenant_id": tenant_id, "node_id": node_id, "data": text}
    connection.execute(insert(_event), values)


def record_tenant(connection: Connection, tenant_id: str, data: Mapping[str, Any], *, now_ms: int, user_id: str | None) -> None:
    """Add an event about a tenant or a project of it."""
    record(connection, TENANT_CHANGED, data, now_ms=now_ms, user_id=user_id, tenant_id=tenant_id)


def differences(before: Any, after: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the fields of `after` that are not as they were."""
    return {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
