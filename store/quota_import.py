"""Many quotas in one step: cohorts, tenants, rules and amounts brought to what a set of manifests says, all of it or nothing.

Owns the order of the steps and the list of what changed. Every step is one of the store's own commands, so it is checked, and tells of
itself by an event, as if an operator had typed it. Does not read manifests (api/kueue_import.py). A rehearsal does everything and takes it
back, so that it refuses what the real import would. Quotas that rows have and the manifests do not name stay: a row is never edited, and
nominal 0 would say something else than no quota.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sqlalchemy import Connection, select, update

from scheduler.decision.snapshot import Policy
from store import cohorts, identity, quota_rules, quota_usage, quotas
from store.errors import InvalidError, RefusalError
from store.tables import QuotaNode, Tenant

_place = QuotaNode.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class WantedQuota:
    """One resource. `id` is for the row, where one is needed."""

    id: str
    resource: str
    nominal: int
    borrowing_limit: int | None
    lending_limit: int | None


@dataclass(frozen=True, slots=True)
class WantedCohort:
    """A cohort. One that is only referred to is made where it is missing and left alone where it is not."""

    name: str
    is_described: bool
    parent: str | None
    weight_milli: int
    quotas: Sequence[WantedQuota]


@dataclass(frozen=True, slots=True)
class WantedTenant:
    """A tenant; `id` and `project_id` are for a new one. `rules` are those that the manifests speak of."""

    id: str
    project_id: str
    name: str
    parent: str | None
    weight_milli: int
    rules: Mapping[str, Any]
    quotas: Sequence[WantedQuota]


_Node = WantedCohort | WantedTenant


@dataclass(frozen=True, slots=True)
class ImportChange:
    """One thing that was made (`create`) or changed."""

    action: str
    kind: str  # cohort | tenant | quota | rules
    name: str
    resource: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Imported:
    """What changed, in order, and the quotas that nobody named: (cohort or tenant, resource)."""

    changes: tuple[ImportChange, ...]
    kept: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ImportQuotas:
    """Bring the rows to what is wanted."""

    cohorts: Sequence[WantedCohort]
    tenants: Sequence[WantedTenant]
    base: Policy
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> Imported:
        """Return what changed; whatever a single command would refuse is refused, and then nothing was changed."""
        return _Import(self, connection).run()


class RehearsedError(RefusalError):
    """The rehearsal went well and was taken back; `imported` is what it did."""

    def __init__(self, imported: Imported) -> None:
        super().__init__("rehearsed", "this was a rehearsal; nothing was changed")
        self.imported = imported


@dataclass(frozen=True, slots=True)
class RehearseImport:
    """Do an import and take it back."""

    wanted: ImportQuotas

    def execute(self, connection: Connection, /) -> NoReturn:
        """Raise RehearsedError, or what the import raises."""
        raise RehearsedError(self.wanted.execute(connection))


@dataclass
class _Import:
    """One import under way."""

    wanted: ImportQuotas
    connection: Connection
    changes: list[ImportChange] = field(default_factory=list)

    def run(self) -> Imported:
        wanted, connection = self.wanted, self.connection
        self._check_resources()
        cohorts.take_turn(connection)
        known = {row.name: row.id for row in connection.execute(select(_place.c.name, _place.c.id).where(_place.c.kind == cohorts.COHORT))}
        for cohort in wanted.cohorts:
            if cohort.name not in known:
                self._create_cohort(cohort)
        # Whoever moves to where nobody lends gives up its borrowing limits before, everybody else gets limits after.
        known_tenants = set(connection.execute(select(_tenant.c.name)).scalars())
        before = [item for item in wanted.cohorts if item.name in known and item.is_described and item.parent is None]
        first = [item for item in wanted.tenants if item.name in known_tenants and item.parent is None]
        early: list[_Node] = [*before, *first]
        for node in early:
            self._set_quotas(node)
        self._move_cohorts([cohort for cohort in wanted.cohorts if cohort.is_described])
        for tenant in wanted.tenants:
            self._set_tenant(tenant) if tenant.name in known_tenants else self._create_tenant(tenant)
        for node in self._nodes():
            if node not in early:
                self._set_quotas(node)
        for tenant in wanted.tenants:
            self._set_rules(tenant)
        return Imported(tuple(self.changes), self._kept())

    def _nodes(self) -> list[_Node]:
        return [*self.wanted.cohorts, *self.wanted.tenants]

    def _check_resources(self) -> None:
        models = quota_usage.models(self.connection)
        known = {*models, *quotas.RESOURCES_BESIDE_GPUS}
        named = (quota.resource for node in self._nodes() for quota in node.quotas)
        unknown = next((resource for resource in named if resource not in known), None)
        if unknown is not None:
            message = f"models: {unknown!r} is not one of {', '.join(models)}; say which GPU model this flavor is"
            raise InvalidError("unknown_resource", message, field="models", limit=models)

    def _note(
        self, action: str, kind: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any], resource: str | None = None
    ) -> None:
        changed = {key: value for key, value in after.items() if action == "create" or before.get(key) != value}
        if action == "create" or changed:
            self.changes.append(ImportChange(action, kind, name, resource, {key: before[key] for key in changed if key in before}, changed))

    def _create_cohort(self, cohort: WantedCohort) -> None:
        weight = cohort.weight_milli
        cohorts.CreateCohort(cohort.name, None, weight, self.wanted.now_ms, self.wanted.user_id).execute(self.connection)
        self._note("create", "cohort", cohort.name, {}, {"parent": cohort.parent, "weight_milli": weight})

    def _move_cohorts(self, described: Sequence[WantedCohort]) -> None:
        """Put cohorts where they belong. All that move are loose before any of them settles: two that change places are no ring."""
        before = {cohort.name: cohorts.find(self.connection, cohort.name) for cohort in described}
        moving = [cohort for cohort in described if before[cohort.name].parent != cohort.parent]
        loose = [before[cohort.name].id for cohort in moving]
        self.connection.execute(update(_place).where(_place.c.id.in_(loose)).values(parent_id=None))
        made = {change.name for change in self.changes if (change.action, change.kind) == ("create", "cohort")}
        for cohort in described:
            command = cohorts.SetCohort(
                cohort.name, cohort in moving, cohort.parent, cohort.weight_milli, self.wanted.now_ms, self.wanted.user_id
            )
            command.execute(self.connection)
            if cohort.name not in made:
                was = before[cohort.name]
                after = {"parent": cohort.parent, "weight_milli": cohort.weight_milli}
                self._note("change", "cohort", cohort.name, {"parent": was.parent, "weight_milli": was.weight_milli}, after)

    def _create_tenant(self, tenant: WantedTenant) -> None:
        command = identity.CreateTenant(
            tenant.id, tenant.project_id, tenant.name, tenant.parent, tenant.weight_milli, self.wanted.now_ms, self.wanted.user_id
        )
        command.execute(self.connection)
        self._note("create", "tenant", tenant.name, {}, {"parent": tenant.parent, "weight_milli": tenant.weight_milli})

    def _set_tenant(self, tenant: WantedTenant) -> None:
        was = identity.find_tenant(self.connection, tenant.name)
        is_moved = was.parent != tenant.parent
        command = identity.SetTenant(
            tenant.name, tenant.weight_milli, None, self.wanted.now_ms, self.wanted.user_id, is_moved=is_moved, parent=tenant.parent
        )
        command.execute(self.connection)
        after = {"parent": tenant.parent, "weight_milli": tenant.weight_milli}
        self._note("change", "tenant", tenant.name, {"parent": was.parent, "weight_milli": was.weight_milli}, after)

    def _in_force(self, node: _Node) -> Mapping[str, Any]:
        return quotas.in_force_of(self.connection, self._place(node).id, self.wanted.now_ms)

    def _place(self, node: _Node) -> quotas.Place:
        is_tenant = isinstance(node, WantedTenant)
        return quotas.find_place(self.connection, node.name if is_tenant else None, None, None if is_tenant else node.name)

    def _set_quotas(self, node: _Node) -> None:
        is_tenant = isinstance(node, WantedTenant)
        in_force = self._in_force(node) if node.quotas else {}
        for quota in node.quotas:
            known = in_force.get(quota.resource)
            wanted = {"nominal": quota.nominal, "borrowing_limit": quota.borrowing_limit, "lending_limit": quota.lending_limit}
            before = {} if known is None else {name: getattr(known, name) for name in wanted}
            if before == wanted:
                continue
            command = quotas.SetQuota(
                quota.id, node.name if is_tenant else None, None, quota.resource, quota.nominal, quota.borrowing_limit,
                quota.lending_limit, self.wanted.now_ms, None, self.wanted.now_ms, None if is_tenant else node.name, self.wanted.user_id,
            )  # fmt: skip
            command.apply(self.connection)
            self._note("create" if known is None else "change", "quota", node.name, before, wanted, quota.resource)

    def _set_rules(self, tenant: WantedTenant) -> None:
        columns = [_place.c[name] for name in quota_rules.RULES]
        before = self.connection.execute(select(*columns).where(_place.c.id == self._place(tenant).id)).one()._asdict()
        if all(before[name] == value for name, value in tenant.rules.items()):
            return
        command = quota_rules.SetRules(tenant.name, None, tenant.rules, self.wanted.base, self.wanted.now_ms, self.wanted.user_id)
        command.execute(self.connection)
        self._note("change", "rules", tenant.name, before, tenant.rules)

    def _kept(self) -> tuple[tuple[str, str], ...]:
        found = []
        for node in self._nodes():
            if isinstance(node, WantedCohort) and not node.is_described:
                continue
            named = {quota.resource for quota in node.quotas}
            found += [(node.name, resource) for resource in sorted(self._in_force(node).keys() - named)]
        return tuple(found)
