"""Cohorts: the inner nodes of the quota tree, and who stands below whom.

Owns the rows of `quota_node` of kind cohort, and the rule of every move in the tree: no ring, and no path longer than
`quotas.tree.DEPTH_MAXIMUM` from a project to its root, projects without quota included, so that a quota can be given to any of them later.
Tenants and projects are made in identity.py, which asks here for their places. Structure changes take turns on PostgreSQL: two moves that
are right apart could form a ring together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, text, update

from quotas.tree import DEPTH_MAXIMUM
from store import duplicates, operator_events
from store.errors import ConflictError, InvalidError, NotFoundError
from store.tables import Quota, QuotaNode

COHORT = "cohort"
LIST_MAXIMUM = 500
LEVELS_OF_A_TENANT = 2  # itself and its projects
NAMED_MAXIMUM = 5  # members that a refusal names

_place = QuotaNode.__table__  # type: ignore[attr-defined]
_parent = _place.alias("parent")
_quota = Quota.__table__  # type: ignore[attr-defined]
_cohorts = (
    select(_place.c.id, _place.c.name, _parent.c.name, _place.c.weight_milli)
    .select_from(_place.outerjoin(_parent, _parent.c.id == _place.c.parent_id))
    .where(_place.c.kind == COHORT)
)


@dataclass(frozen=True, slots=True)
class CohortView:
    """A cohort. `parent` is the name of the cohort above."""

    id: str
    name: str
    parent: str | None
    weight_milli: int


def find(connection: Connection, name: str) -> CohortView:
    """Return the cohort called `name`; NotFoundError when there is none."""
    row = connection.execute(_cohorts.where(_place.c.name == name)).first()
    if row is None:
        raise NotFoundError("cohort_not_found", f"there is no cohort {name!r}", field="cohort")
    return CohortView(*row)


def parent_id_of(connection: Connection, name: str | None) -> str | None:
    """Return the identifier of the cohort that a request names as parent, None for none; InvalidError when there is no such cohort."""
    if name is None:
        return None
    row = connection.execute(_cohorts.where(_place.c.name == name)).first()
    if row is None:
        raise InvalidError("unknown_cohort", f"parent: there is no cohort {name!r}", field="parent")
    return str(row.id)


def take_turn(connection: Connection) -> None:
    """Let nobody else change the structure of the tree until this transaction ends."""
    if connection.dialect.name != "sqlite":
        connection.execute(text("LOCK TABLE quota_node IN SHARE ROW EXCLUSIVE MODE"))


def check_new_place(connection: Connection, parent_id: str | None, *, levels: int) -> None:
    """Raise InvalidError when something with so many levels has no room below `parent_id`."""
    if parent_id is not None:
        _check_depth(len(_path(connection, parent_id)) + levels)


def move_tenant(connection: Connection, tenant_id: str, parent_id: str | None, now_ms: int) -> None:
    """Put a tenant below a cohort (None: below nothing); InvalidError for too deep a place, or limits on borrowing of nobody."""
    if parent_id is None:
        _check_borrows_nothing(connection, tenant_id, now_ms)
    check_new_place(connection, parent_id, levels=LEVELS_OF_A_TENANT)
    connection.execute(update(_place).where(_place.c.id == tenant_id).values(parent_id=parent_id))


def _move_cohort(connection: Connection, node_id: str, parent_id: str | None, now_ms: int) -> None:
    """Put a cohort below another one, or below nothing; InvalidError as for a tenant, and for a ring."""
    if parent_id is None:
        _check_borrows_nothing(connection, node_id, now_ms)
    else:
        above = _path(connection, parent_id)
        if node_id in above:
            rows = connection.execute(select(_place.c.id, _place.c.name).where(_place.c.id.in_(above)))
            names = {row.id: row.name for row in rows}
            ring = " > ".join(names[item] for item in [node_id, *above[: above.index(node_id) + 1]])
            raise InvalidError("cohort_ring", f"parent: its cohorts would form a ring: {ring}", field="parent")
        _check_depth(len(above) + _height(connection, node_id))
    connection.execute(update(_place).where(_place.c.id == node_id).values(parent_id=parent_id))


def _path(connection: Connection, node_id: str) -> list[str]:
    """Return the identifiers from a node up to its root."""
    path = [node_id]
    while (above := connection.execute(select(_place.c.parent_id).where(_place.c.id == path[-1])).scalar_one()) is not None:
        path.append(above)
    return path


def _height(connection: Connection, node_id: str) -> int:
    """Return the levels of a subtree, its root included."""
    children: dict[str | None, list[str]] = {}
    for row in connection.execute(select(_place.c.id, _place.c.parent_id)):
        children.setdefault(row.parent_id, []).append(row.id)
    levels, nodes = 0, [node_id]
    while nodes:
        levels, nodes = levels + 1, [child for item in nodes for child in children.get(item, [])]
    return levels


def _check_depth(levels: int) -> None:
    if levels > DEPTH_MAXIMUM:
        message = f"parent: the quota tree would have {levels} levels from its root to a project, the most is {DEPTH_MAXIMUM}"
        raise InvalidError("quota_tree_too_deep", message, field="parent", limit=DEPTH_MAXIMUM)


def _check_borrows_nothing(connection: Connection, node_id: str, now_ms: int) -> None:
    ahead = or_(_quota.c.valid_until_ms.is_(None), _quota.c.valid_until_ms > now_ms)
    rows = connection.execute(
        select(_quota.c.resource, _quota.c.borrowing_limit, _quota.c.valid_from_ms)
        .where(_quota.c.quota_node_id == node_id, ahead)
        .order_by(_quota.c.valid_from_ms, _quota.c.created_at_ms, _quota.c.id)
    )
    last: dict[str, int | None] = {}
    later: dict[str, int | None] = {}
    for resource, limit, valid_from_ms in rows:
        if valid_from_ms <= now_ms:
            last[resource] = limit
        elif limit is not None:
            later[resource] = limit
    limited = sorted(resource for resource, limit in (last | later).items() if limit is not None)
    if limited:
        message = f"parent: there is a borrowing limit of {', '.join(limited)}; set these quotas without one before"
        raise InvalidError("nobody_to_borrow_from", message, field="parent")


@dataclass(frozen=True, slots=True)
class CreateCohort:
    """Make a cohort. Its identifier follows from its name, so the database itself holds names apart."""

    name: str
    parent: str | None
    weight_milli: int
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> CohortView:
        """Return the new cohort; ConflictError for a taken name, InvalidError for the parent."""
        take_turn(connection)
        parent_id = parent_id_of(connection, self.parent)
        check_new_place(connection, parent_id, levels=1)
        known = connection.execute(select(_place.c.id).where(_place.c.kind == COHORT, _place.c.name == self.name)).first()
        message = f"there is a cohort {self.name!r} already"
        if known is not None:
            raise ConflictError("cohort_exists", message, field="name")
        view = CohortView(f"coh_{self.name}", self.name, self.parent, self.weight_milli)
        values = {"id": view.id, "kind": COHORT, "name": self.name, "parent_id": parent_id, "weight_milli": self.weight_milli}
        with duplicates.refused_as("cohort_exists", message, field="name"):
            connection.execute(insert(_place), values)
        data = {"created": True, "parent": view.parent, "weight_milli": view.weight_milli}
        _record(connection, self.name, data, self.now_ms, self.user_id)
        return view


@dataclass(frozen=True, slots=True)
class SetCohort:
    """Move a cohort or change its weight. `is_moved` False leaves it where it is, True puts it below `parent`, None for the root."""

    name: str
    is_moved: bool
    parent: str | None
    weight_milli: int | None
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> CohortView:
        """Return the cohort as it is now; NotFoundError, InvalidError for the parent."""
        take_turn(connection)
        before = find(connection, self.name)
        if self.is_moved:
            _move_cohort(connection, before.id, parent_id_of(connection, self.parent), self.now_ms)
        if self.weight_milli is not None:
            connection.execute(update(_place).where(_place.c.id == before.id).values(weight_milli=self.weight_milli))
        after = find(connection, self.name)
        changed = operator_events.differences(before, after, ("parent", "weight_milli"))
        if changed:
            _record(connection, self.name, changed, self.now_ms, self.user_id)
        return after


@dataclass(frozen=True, slots=True)
class DeleteCohort:
    """Take an empty cohort away, with its quotas."""

    name: str
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> CohortView:
        """Return what it was; NotFoundError, ConflictError while somebody stands below it."""
        take_turn(connection)
        view = find(connection, self.name)
        members = list(connection.execute(select(_place.c.name).where(_place.c.parent_id == view.id).order_by(_place.c.name)).scalars())
        if members:
            shown = ", ".join(members[:NAMED_MAXIMUM]) + (", …" if len(members) > NAMED_MAXIMUM else "")
            raise ConflictError("cohort_not_empty", f"below cohort {self.name!r} stand {shown}; move them first", members=len(members))
        connection.execute(delete(_quota).where(_quota.c.quota_node_id == view.id))
        connection.execute(delete(_place).where(_place.c.id == view.id))
        _record(connection, self.name, {"deleted": True}, self.now_ms, self.user_id)
        return view


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Cohorts in order of name after `after`."""

    after: str = ""
    limit: int = LIST_MAXIMUM

    def fetch(self, connection: Connection, /) -> tuple[CohortView, ...]:
        """Return at most `limit` cohorts."""
        statement = _cohorts.where(_place.c.name > self.after).order_by(_place.c.name).limit(self.limit)
        return tuple(CohortView(*row) for row in connection.execute(statement))


def _record(connection: Connection, name: str, data: Mapping[str, Any], now_ms: int, user_id: str | None) -> None:
    operator_events.record(connection, operator_events.COHORT_CHANGED, {"cohort": name, **data}, now_ms=now_ms, user_id=user_id)
