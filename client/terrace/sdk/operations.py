"""What an operator does: tenants, projects, users, keys, nodes, quotas and prices.

Owns one method per verb. Does not own what may be done: the service decides by the key's role, and refuses with a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from terrace.models.common import Problem
from terrace.models.fleet import NodeAnswer, NodeCreate, NodeSet, PriceAnswer, PriceCreate, QuotaAnswer, QuotaSet
from terrace.models.people import (
    KeyAnswer,
    KeyCreate,
    KeyCreated,
    ProjectAnswer,
    ProjectCreate,
    Role,
    TenantAnswer,
    TenantCreate,
    TenantSet,
    UserAnswer,
    UserCreate,
    UserSet,
)
from terrace.sdk.errors import ApiError
from terrace.sdk.scheduling import KEEP, Keep
from terrace.sdk.transport import Transport, path_of


class OperatorVerbs:
    """Mixed into `Client`. Every method raises ApiError when refused and UnreachableError when not answered."""

    _wire: Transport

    def tenants(self) -> list[TenantAnswer]:
        """Return all tenants that the key may see."""
        return list(self._wire.items("/v1/tenants", TenantAnswer))

    def tenant(self, name: str) -> TenantAnswer:
        """Return a tenant by its name."""
        return self._wire.get(path_of("v1", "tenants", name), TenantAnswer)

    def create_tenant(self, name: str, *, parent: str | None = None, weight_milli: int = 1_000) -> TenantAnswer:
        """Make a tenant with a project named `default`."""
        body = TenantCreate(name=name, parent=parent, weight_milli=weight_milli)
        return self._wire.create("/v1/tenants", body, TenantAnswer)

    def set_tenant(
        self,
        name: str,
        *,
        weight_milli: int | None = None,
        is_suspended: bool | None = None,
        parent: str | Literal[Keep.KEEP] | None = KEEP,
    ) -> TenantAnswer:
        """Change a tenant's weight, suspend it (what is None stays), or move it to the cohort `parent` (None: out of any)."""
        moved = {} if parent is KEEP else {"parent": parent}
        body = TenantSet.model_validate(_given(weight_milli=weight_milli, is_suspended=is_suspended) | moved)
        return self._wire.act("PATCH", path_of("v1", "tenants", name), TenantAnswer, body)

    def projects(self, tenant: str) -> list[ProjectAnswer]:
        """Return a tenant's projects."""
        return list(self._wire.items(path_of("v1", "tenants", tenant, "projects"), ProjectAnswer))

    def create_project(self, tenant: str, name: str) -> ProjectAnswer:
        """Make a project in a tenant."""
        return self._wire.create(path_of("v1", "tenants", tenant, "projects"), ProjectCreate(name=name), ProjectAnswer)

    def users(self, *, tenant: str | None = None, name: str | None = None) -> list[UserAnswer]:
        """Return users, oldest first."""
        return list(self._wire.items("/v1/users", UserAnswer, tenant=tenant, name=name))

    def user(self, name: str, *, tenant: str | None = None) -> UserAnswer:
        """Return the one user with this name in a tenant, or without one; ApiError (user_not_found) when there is none."""
        found = [user for user in self.users(tenant=tenant, name=name) if user.name == name and tenant in (None, user.tenant)]
        if len(found) > 1:  # without a tenant in the question, the user without a tenant is meant
            found = [user for user in found if user.tenant == tenant]
        if len(found) != 1:
            where = "without a tenant" if tenant is None else f"in tenant {tenant!r}"
            raise ApiError(Problem(title="Not Found", status=404, code="user_not_found", detail=f"there is no user {name!r} {where}"))
        return found[0]

    def create_user(self, name: str, *, role: str | Role, tenant: str | None = None) -> UserAnswer:
        """Make a user; tenant roles need `tenant`."""
        return self._wire.create("/v1/users", UserCreate(name=name, role=Role(role), tenant=tenant), UserAnswer)

    def set_user(self, user_id: str, *, is_disabled: bool) -> UserAnswer:
        """Disable a user, so that none of its keys works, or enable it again."""
        return self._wire.act("PATCH", path_of("v1", "users", user_id), UserAnswer, UserSet(is_disabled=is_disabled))

    def keys(self) -> list[KeyAnswer]:
        """Return keys without their secrets: one's own, or those of everyone whom one may manage."""
        return list(self._wire.items("/v1/keys", KeyAnswer))

    def create_key(
        self,
        *,
        user_id: str | None = None,
        name: str = "key",
        scopes: Sequence[str] = ("*",),
        expires_at: datetime | None = None,
        node: str | None = None,
    ) -> KeyCreated:
        """Make a key for oneself, for a user, or for a node's agent. The secret is in this answer only."""
        fields = _given(user_id=user_id, name=name, scopes=list(scopes), expires_at=expires_at, node=node)
        return self._wire.create("/v1/keys", KeyCreate.model_validate(fields), KeyCreated)

    def revoke_key(self, key_id: str) -> KeyAnswer:
        """Revoke a key; doing it again changes nothing."""
        return self._wire.act("DELETE", path_of("v1", "keys", key_id), KeyAnswer)

    def nodes(self) -> list[NodeAnswer]:
        """Return all nodes with their devices."""
        return list(self._wire.items("/v1/nodes", NodeAnswer))

    def node(self, name: str) -> NodeAnswer:
        """Return a node by its name."""
        return self._wire.get(path_of("v1", "nodes", name), NodeAnswer)

    def create_node(self, name: str, *, site: str = "local", rack: str | None = None) -> NodeAnswer:
        """Register a node that an agent will speak for."""
        return self._wire.create("/v1/nodes", NodeCreate(name=name, site=site, rack=rack), NodeAnswer)

    def set_node(
        self,
        name: str,
        *,
        is_cordoned: bool | None = None,
        is_draining: bool | None = None,
        labels: Mapping[str, str | None] | None = None,
        taints: Sequence[str] | None = None,
        rack: str | Literal[Keep.KEEP] | None = KEEP,
    ) -> NodeAnswer:
        """Cordon (nothing new starts) or drain (running leases are evicted too) a node, label it, taint it; what is None stays.

        A label of None is taken away, `taints` replaces all; `rack` None: the node stands in no rack.
        """
        given = _given(is_cordoned=is_cordoned, is_draining=is_draining, labels=labels, taints=taints)
        body = NodeSet.model_validate(given | ({} if rack is KEEP else {"rack": rack}))
        return self._wire.act("PATCH", path_of("v1", "nodes", name), NodeAnswer, body)

    def declare_node_gone(self, name: str) -> NodeAnswer:
        """Say that a lost node does not come back: its jobs go on elsewhere. RefusedError `node_not_lost` while its agent is heard."""
        return self._wire.act("POST", path_of("v1", "nodes", name, "gone"), NodeAnswer)

    def set_quota(
        self,
        tenant: str,
        resource: str,
        *,
        nominal: int,
        project: str | None = None,
        borrowing_limit: int | None = None,
        lending_limit: int | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
    ) -> QuotaAnswer:
        """Set what a tenant or project may hold at once: milli-GPU for a GPU model, milli-CPU for `cpu`, bytes for `memory`."""
        limits = _given(borrowing_limit=borrowing_limit, lending_limit=lending_limit, valid_from=valid_from, valid_until=valid_until)
        body = QuotaSet.model_validate({"resource": resource, "nominal": nominal, **limits})
        path = path_of("v1", "quotas", tenant, *(() if project is None else ("projects", project)))
        return self._wire.act("PUT", path, QuotaAnswer, body)

    def prices(self) -> list[PriceAnswer]:
        """Return all list prices, past and future ones too."""
        return list(self._wire.items("/v1/prices", PriceAnswer))

    def create_price(self, flavor: str, *, units_per_hour: int, currency: str = "USD", valid_from: datetime | None = None) -> PriceAnswer:
        """Set a list price from `valid_from` (now) on, in the currency's smallest accounted unit per slice and hour."""
        fields = _given(flavor=flavor, currency=currency, units_per_hour=units_per_hour, valid_from=valid_from)
        return self._wire.create("/v1/prices", PriceCreate.model_validate(fields), PriceAnswer)


def _given(**fields: object) -> dict[str, object]:
    """Return the fields that were given a value."""
    return {name: value for name, value in fields.items() if value is not None}
