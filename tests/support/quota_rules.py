"""Invariant 3 from the rows: when a lease was granted, its tenant and all above it stayed within what they may hold.

Looked at for the leases that are still open, at the moment of their grant. A node without a parent may hold what it and all below it own; a
node with a parent that much and its borrowing limit; so every root is bounded by the quotas of its tree. Lending limits only narrow that
further. A quota that was cut afterwards says nothing about earlier starts, and one that changed in the very millisecond of a grant may be
seen on either side of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.rows_of_a_database import Row, RowsOf

Amounts = dict[tuple[str, str], int]  # by quota node and resource


def starts_stay_within_quota(rows: RowsOf) -> Iterator[str]:
    """No start makes a tenant exceed its effective limit, borrowing included."""
    open_leases = [lease for lease in rows.lease if lease.released_at_ms is None]
    for granted_at_ms in sorted({lease.granted_at_ms for lease in open_leases}):
        granted = [lease for lease in open_leases if lease.granted_at_ms == granted_at_ms]
        # A start cannot exceed what it takes nothing of: a job without GPUs may start beside GPUs over a quota that was cut.
        concerned = {(node, resource) for lease in granted for node in _path(rows, lease.project_id) for resource in _amounts(rows, lease)}
        before, after = (_excess(rows, granted_at_ms, is_new=is_new) for is_new in (False, True))
        for node, resource in sorted(before.keys() & after.keys()):
            if (node, resource) in concerned:
                held, limit = after[node, resource]
                yield f"{node} held {held} of {resource} at {granted_at_ms}, it may hold {limit}"


def _excess(rows: RowsOf, at_ms: int, *, is_new: bool) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (held, limit) of each node that holds more than it may. `is_new`: rows that were written in that very millisecond count."""
    quotas = _quotas(rows, at_ms, is_new=is_new)
    subtree: Amounts = {}
    for (node, resource), row in quotas.items():
        for above in _path(rows, node):
            subtree[above, resource] = subtree.get((above, resource), 0) + row.nominal
    found = {}
    for (node, resource), amount in _held(rows, quotas, at_ms).items():
        row = quotas.get((node, resource))
        if len(_path(rows, node)) == 1:
            limit = subtree[node, resource]
        elif row is not None and row.borrowing_limit is not None:
            limit = subtree[node, resource] + row.borrowing_limit
        else:
            continue
        if amount > limit:
            found[node, resource] = (amount, limit)
    return found


def _quotas(rows: RowsOf, at_ms: int, *, is_new: bool) -> dict[tuple[str, str], Row]:
    quotas: dict[tuple[str, str], Row] = {}
    for row in sorted(rows.quota, key=lambda row: (row.valid_from_ms, row.created_at_ms, row.id)):
        is_known = row.created_at_ms < at_ms or (is_new and row.created_at_ms == at_ms)
        if is_known and row.valid_from_ms <= at_ms and (row.valid_until_ms is None or at_ms < row.valid_until_ms):
            quotas[row.quota_node_id, row.resource] = row
    return quotas


def _held(rows: RowsOf, quotas: dict[tuple[str, str], Row], at_ms: int) -> Amounts:
    """Return what each node holds of what a quota on the way to its root speaks of."""
    held: Amounts = {}
    for lease in rows.lease:
        if lease.granted_at_ms > at_ms or (lease.released_at_ms is not None and lease.released_at_ms <= at_ms):
            continue
        path = _path(rows, lease.project_id)
        for resource, amount in _amounts(rows, lease).items():
            if any((node, resource) in quotas for node in path):
                for node in path:
                    held[node, resource] = held.get((node, resource), 0) + amount
    return held


def _amounts(rows: RowsOf, lease: Row) -> dict[str, int]:
    """Return what a lease takes of each resource, without those of which it takes nothing."""
    parts = [part for part in rows.lease_node if part.lease_id == lease.id]
    amounts = {"cpu": sum(part.cpu_milli for part in parts), "memory": sum(part.memory_bytes for part in parts)}
    if lease.flavor is not None:
        (model,) = [flavor.gpu_model for flavor in rows.flavor if flavor.name == lease.flavor]
        amounts[model] = lease.milli_gpu
    return {resource: amount for resource, amount in amounts.items() if amount}


def _path(rows: RowsOf, node: str) -> list[str]:
    parents = {place.id: place.parent_id for place in rows.quota_node}
    path = [node]
    while (above := parents[path[-1]]) is not None:
        path.append(above)
    return path
