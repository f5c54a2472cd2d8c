"""Tenants, projects, users and API keys: who may speak to the service.

Owns the rows of tenant, project, account, api_key and of the tenants' and projects' places in the quota tree. It stores hashes
of secrets and never sees a secret. It does not decide who may do what: api/permissions.py does. Called by api and by the composition root.
Somebody else's object is reported as missing when a `tenant_id` narrows the question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, bindparam, insert, or_, select, update

from store import cohorts, duplicates, operator_events
from store.errors import ConflictError, InvalidError, NotFoundError
from store.tables import ApiKey, Node, Project, QuotaNode, Tenant, User

DEFAULT_PROJECT = "default"
TENANT_ROLES = frozenset({"admin", "member", "viewer"})
LIST_MAXIMUM = 500

_tenant = Tenant.__table__  # type: ignore[attr-defined]
_project = Project.__table__  # type: ignore[attr-defined]
_user = User.__table__  # type: ignore[attr-defined]
_key = ApiKey.__table__  # type: ignore[attr-defined]
_place = QuotaNode.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]
_parent = _place.alias("parent")


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant. `parent` is the name of its cohort."""

    id: str
    name: str
    parent: str | None
    weight_milli: int
    is_suspended: bool
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class ProjectView:
    """A project and the name of its tenant."""

    id: str
    tenant: str
    name: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class UserView:
    """A user. `tenant` is None for operators, finance and nodes."""

    id: str
    name: str
    role: str
    tenant_id: str | None
    tenant: str | None
    is_disabled: bool
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key without its hash."""

    id: str
    user_id: str
    name: str
    scopes: tuple[str, ...]
    node: str | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a key speaks for, with what is needed to check the key itself."""

    key_id: str
    secret_sha256: str
    user_id: str
    user: str
    role: str
    tenant_id: str | None
    tenant: str | None
    scopes: tuple[str, ...]
    node: str | None
    expires_at_ms: int | None
    is_disabled: bool  # key revoked or user disabled
    is_suspended: bool  # the tenant


_tenants = select(
    _tenant.c.id, _tenant.c.name, _parent.c.name, _place.c.weight_milli, _tenant.c.is_suspended, _tenant.c.created_at_ms
).select_from(_tenant.join(_place, _place.c.id == _tenant.c.id).outerjoin(_parent, _parent.c.id == _place.c.parent_id))
_projects = select(_project.c.id, _tenant.c.name, _project.c.name, _project.c.created_at_ms).select_from(
    _project.join(_tenant, _tenant.c.id == _project.c.tenant_id)
)
_users = select(
    _user.c.id, _user.c.name, _user.c.role, _user.c.tenant_id, _tenant.c.name, _user.c.is_disabled, _user.c.created_at_ms
).select_from(_user.outerjoin(_tenant, _tenant.c.id == _user.c.tenant_id))
_keys = select(
    _key.c.id, _key.c.user_id, _key.c.name, _key.c.scopes, _key.c.node_name, _key.c.created_at_ms, _key.c.expires_at_ms,
    _key.c.revoked_at_ms,
).select_from(_key.join(_user, _user.c.id == _key.c.user_id))  # fmt: skip
_principal = (
    select(
        _key.c.id, _key.c.secret_sha256, _user.c.id, _user.c.name, _user.c.role, _user.c.tenant_id, _tenant.c.name, _key.c.scopes,
        _key.c.node_name, _key.c.expires_at_ms, _key.c.revoked_at_ms, _user.c.is_disabled, _tenant.c.is_suspended,
    )
    .select_from(_key.join(_user, _user.c.id == _key.c.user_id).outerjoin(_tenant, _tenant.c.id == _user.c.tenant_id))
    .where(_key.c.id == bindparam("sent"))
)  # fmt: skip


def _key_view(row: tuple[object, ...]) -> KeyView:
    identifier, user_id, name, scopes, *rest = row
    return KeyView(str(identifier), str(user_id), str(name), tuple(json.loads(str(scopes))), *rest)  # type: ignore[arg-type]


def find_tenant(connection: Connection, name: str) -> TenantView:
    """Return the tenant called `name`; NotFoundError when there is none."""
    row = connection.execute(_tenants.where(_tenant.c.name == name)).first()
    if row is None:
        raise NotFoundError("tenant_not_found", f"there is no tenant {name!r}", field="tenant")
    return TenantView(*row)


@dataclass(frozen=True, slots=True)
class CreateTenant:
    """Make a tenant, its place in the quota tree and its project `default`; refuses a taken name and an unknown cohort."""

    id: str
    project_id: str
    name: str
    parent: str | None
    weight_milli: int
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> TenantView:
        """Return the new tenant."""
        cohorts.take_turn(connection)
        parent_id = cohorts.parent_id_of(connection, self.parent)
        cohorts.check_new_place(connection, parent_id, levels=cohorts.LEVELS_OF_A_TENANT)
        place = {"id": self.id, "kind": "tenant", "name": self.name, "parent_id": parent_id, "weight_milli": self.weight_milli}
        connection.execute(insert(_place), place)
        with duplicates.refused_as("tenant_exists", f"there is a tenant {self.name!r} already", field="name"):
            values = {"id": self.id, "name": self.name, "is_suspended": False, "created_at_ms": self.now_ms}
            connection.execute(insert(_tenant), values)
        CreateProject(self.project_id, self.name, DEFAULT_PROJECT, self.now_ms, self.user_id).execute(connection)
        view = TenantView(self.id, self.name, self.parent, self.weight_milli, False, self.now_ms)
        data = {"tenant": self.name, "created": True, "parent": self.parent, "weight_milli": self.weight_milli}
        operator_events.record_tenant(connection, self.id, data, now_ms=self.now_ms, user_id=self.user_id)
        return view


@dataclass(frozen=True, slots=True)
class SetTenant:
    """Change fields of a tenant; None leaves a field as it is. `is_moved` puts it below the cohort `parent`, None for no cohort."""

    name: str
    weight_milli: int | None
    is_suspended: bool | None
    now_ms: int
    user_id: str | None = None
    is_moved: bool = False
    parent: str | None = None

    def execute(self, connection: Connection, /) -> TenantView:
        """Return the tenant as it is now; NotFoundError, InvalidError for the parent."""
        before = find_tenant(connection, self.name)
        if self.is_moved:
            cohorts.take_turn(connection)
            cohorts.move_tenant(connection, before.id, cohorts.parent_id_of(connection, self.parent), self.now_ms)
        if self.weight_milli is not None:
            connection.execute(update(_place).where(_place.c.id == before.id).values(weight_milli=self.weight_milli))
        if self.is_suspended is not None:
            connection.execute(update(_tenant).where(_tenant.c.id == before.id).values(is_suspended=self.is_suspended))
        after = find_tenant(connection, self.name)
        changed = operator_events.differences(before, after, ("parent", "weight_milli", "is_suspended"))
        if changed:
            data = {"tenant": self.name, **changed}
            operator_events.record_tenant(connection, after.id, data, now_ms=self.now_ms, user_id=self.user_id)
        return after


@dataclass(frozen=True, slots=True)
class CreateProject:
    """Make a project and its place in the quota tree; refuses a name that the tenant has already."""

    id: str
    tenant: str
    name: str
    now_ms: int
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> ProjectView:
        """Return the new project; NotFoundError for the tenant."""
        tenant = find_tenant(connection, self.tenant)
        connection.execute(
            insert(_place), {"id": self.id, "kind": "project", "name": self.name, "parent_id": tenant.id, "weight_milli": 1_000}
        )
        with duplicates.refused_as("project_exists", f"tenant {self.tenant!r} has a project {self.name!r} already", field="name"):
            values = {"id": self.id, "tenant_id": tenant.id, "name": self.name, "created_at_ms": self.now_ms}
            connection.execute(insert(_project), values)
        data = {"tenant": self.tenant, "project": self.name, "created": True}
        operator_events.record_tenant(connection, tenant.id, data, now_ms=self.now_ms, user_id=self.user_id)
        return ProjectView(self.id, self.tenant, self.name, self.now_ms)


@dataclass(frozen=True, slots=True)
class CreateUser:
    """Make a user; refuses a taken name in the same tenant (or among those without one) and a tenant that does not fit the role."""

    id: str
    name: str
    role: str
    tenant: str | None
    now_ms: int

    def execute(self, connection: Connection, /) -> UserView:
        """Return the new user; NotFoundError for the tenant, InvalidError, ConflictError."""
        if (self.role in TENANT_ROLES) != (self.tenant is not None):
            need = "needs a tenant" if self.tenant is None else "belongs to no tenant"
            raise InvalidError("role_does_not_fit", f"a user with role {self.role!r} {need}", field="tenant")
        tenant_id = find_tenant(connection, self.tenant).id if self.tenant is not None else None
        same = and_(_user.c.name == self.name, _user.c.tenant_id.is_(None) if tenant_id is None else _user.c.tenant_id == tenant_id)
        if connection.execute(select(_user.c.id).where(same)).first() is not None:
            raise ConflictError("user_exists", f"there is a user {self.name!r} already", field="name")
        with duplicates.refused_as("user_exists", f"there is a user {self.name!r} already", field="name"):
            values = {"id": self.id, "tenant_id": tenant_id, "name": self.name, "role": self.role, "is_disabled": False}
            connection.execute(insert(_user), {**values, "created_at_ms": self.now_ms})
        return UserView(self.id, self.name, self.role, tenant_id, self.tenant, False, self.now_ms)


@dataclass(frozen=True, slots=True)
class SetUser:
    """Disable a user, so that none of its keys works, or enable it; `tenant_id` narrows to users of that tenant."""

    id: str
    is_disabled: bool | None
    tenant_id: str | None = None

    def execute(self, connection: Connection, /) -> UserView:
        """Return the user as it is now; NotFoundError."""
        user = UserById(self.id, self.tenant_id).fetch(connection)
        if self.is_disabled is None:
            return user
        connection.execute(update(_user).where(_user.c.id == self.id).values(is_disabled=self.is_disabled))
        return replace(user, is_disabled=self.is_disabled)


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Make a key for a user; `tenant_id` narrows to users of that tenant. A node's key names its node, which must exist."""

    id: str
    user_id: str
    name: str
    secret_sha256: str
    scopes: tuple[str, ...]
    node: str | None
    expires_at_ms: int | None
    now_ms: int
    tenant_id: str | None = None

    def execute(self, connection: Connection, /) -> KeyView:
        """Return the new key; NotFoundError for the user, InvalidError when node and role do not fit."""
        user = UserById(self.user_id, tenant_id=self.tenant_id).fetch(connection)
        if (user.role == "node") != (self.node is not None):
            raise InvalidError("node_does_not_fit", "`node` is for keys of users with role node, which need it", field="node")
        if self.node is not None and connection.execute(select(_node.c.id).where(_node.c.name == self.node)).first() is None:
            raise InvalidError("unknown_node", f"there is no node {self.node!r}", field="node")
        values = {
            "id": self.id, "user_id": self.user_id, "name": self.name, "secret_sha256": self.secret_sha256,
            "scopes": json.dumps(self.scopes), "node_name": self.node, "created_at_ms": self.now_ms,
            "expires_at_ms": self.expires_at_ms, "revoked_at_ms": None,
        }  # fmt: skip
        connection.execute(insert(_key), values)
        return KeyView(self.id, self.user_id, self.name, self.scopes, self.node, self.now_ms, self.expires_at_ms, None)


@dataclass(frozen=True, slots=True)
class CreateNodeKey:
    """Make a key by which an agent speaks for `node`, and the node's user on first use."""

    id: str
    new_user_id: str
    name: str
    secret_sha256: str
    node: str
    expires_at_ms: int | None
    now_ms: int
    scopes: tuple[str, ...] = ("*",)

    def execute(self, connection: Connection, /) -> KeyView:
        """Return the new key; InvalidError when there is no such node."""
        user_name = f"node-{self.node}"
        statement = select(_user.c.id).where(and_(_user.c.name == user_name, _user.c.role == "node"))
        user_id = connection.execute(statement).scalar_one_or_none()
        if user_id is None:
            user_id = CreateUser(self.new_user_id, user_name, "node", None, self.now_ms).execute(connection).id
        key = CreateKey(
            self.id,
            user_id,
            self.name,
            self.secret_sha256,
            self.scopes,
            node=self.node,
            expires_at_ms=self.expires_at_ms,
            now_ms=self.now_ms,
        )
        return key.execute(connection)


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """End a key for ever; again changes nothing. `tenant_id` and `user_id` narrow to keys of that tenant and user."""

    id: str
    now_ms: int
    tenant_id: str | None = None
    user_id: str | None = None

    def execute(self, connection: Connection, /) -> KeyView:
        """Return the revoked key; NotFoundError."""
        statement = _keys.where(_key.c.id == self.id)
        if self.tenant_id is not None:
            statement = statement.where(_user.c.tenant_id == self.tenant_id)
        if self.user_id is not None:
            statement = statement.where(_key.c.user_id == self.user_id)
        if connection.execute(statement).first() is None:
            raise NotFoundError("key_not_found", f"there is no key {self.id!r}", field="key")
        still_good = and_(_key.c.id == self.id, _key.c.revoked_at_ms.is_(None))
        connection.execute(update(_key).where(still_good).values(revoked_at_ms=self.now_ms))
        return _key_view(tuple(connection.execute(statement).one()))


@dataclass(frozen=True, slots=True)
class PrincipalByKey:
    """Whom the key `key_id` speaks for, or None when there is no such key."""

    key_id: str

    def fetch(self, connection: Connection, /) -> Principal | None:
        """Return the principal."""
        row = connection.execute(_principal, {"sent": self.key_id}).first()
        if row is None:
            return None
        key_id, digest, user_id, user, role, tenant_id, tenant, scopes, node, expires_at_ms, revoked_at_ms, is_disabled, is_suspended = row
        is_off = revoked_at_ms is not None or bool(is_disabled)
        allowed = tuple(json.loads(scopes))
        return Principal(key_id, digest, user_id, user, role, tenant_id, tenant, allowed, node, expires_at_ms, is_off, bool(is_suspended))


@dataclass(frozen=True, slots=True)
class HasOperator:
    """Whether somebody can operate the service: an operator who is not disabled, with a key that works at `now_ms`."""

    now_ms: int

    def fetch(self, connection: Connection, /) -> bool:
        """Return True when there is one."""
        works = and_(_key.c.revoked_at_ms.is_(None), or_(_key.c.expires_at_ms.is_(None), _key.c.expires_at_ms > self.now_ms))
        joined = _key.join(_user, _user.c.id == _key.c.user_id)
        statement = select(_key.c.id).select_from(joined).where(_user.c.role == "operator", _user.c.is_disabled.is_(False), works).limit(1)
        return connection.execute(statement).first() is not None


@dataclass(frozen=True, slots=True)
class CreateFirstOperator:
    """Make an operator with a key, unless somebody can operate the service. One of that name who cannot gets the key."""

    user_id: str
    name: str
    key_id: str
    secret_sha256: str
    now_ms: int

    def execute(self, connection: Connection, /) -> bool:
        """Return whether it was made."""
        if HasOperator(self.now_ms).fetch(connection):
            return False
        known = and_(_user.c.role == "operator", _user.c.name == self.name)
        user_id = connection.execute(select(_user.c.id).where(known)).scalar_one_or_none()
        if user_id is None:
            user_id = CreateUser(self.user_id, self.name, "operator", None, self.now_ms).execute(connection).id
        SetUser(user_id, is_disabled=False).execute(connection)
        CreateKey(self.key_id, user_id, "first key", self.secret_sha256, ("*",), None, None, self.now_ms).execute(connection)
        return True


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tenants in order of name after `after`; `name` narrows to one."""

    after: str = ""
    limit: int = LIST_MAXIMUM
    name: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[TenantView, ...]:
        """Return at most `limit` tenants."""
        statement = _tenants.where(_tenant.c.name > self.after).order_by(_tenant.c.name).limit(self.limit)
        if self.name is not None:
            statement = statement.where(_tenant.c.name == self.name)
        return tuple(TenantView(*row) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class TenantByName:
    """One tenant."""

    name: str

    def fetch(self, connection: Connection, /) -> TenantView:
        """Return the tenant; NotFoundError."""
        return find_tenant(connection, self.name)


@dataclass(frozen=True, slots=True)
class Projects:
    """Projects of a tenant in order of name after `after`."""

    tenant: str
    after: str = ""
    limit: int = LIST_MAXIMUM

    def fetch(self, connection: Connection, /) -> tuple[ProjectView, ...]:
        """Return at most `limit` projects; NotFoundError for the tenant."""
        find_tenant(connection, self.tenant)
        statement = _projects.where(_tenant.c.name == self.tenant, _project.c.name > self.after).order_by(_project.c.name).limit(self.limit)
        return tuple(ProjectView(*row) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class Users:
    """Users in order of identifier after `after`; `tenant_id`, `name` and the name of a tenant narrow."""

    after: str = ""
    limit: int = LIST_MAXIMUM
    tenant_id: str | None = None
    name: str | None = None
    tenant: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[UserView, ...]:
        """Return at most `limit` users."""
        statement = _users.where(_user.c.id > self.after).order_by(_user.c.id).limit(self.limit)
        if self.tenant_id is not None:
            statement = statement.where(_user.c.tenant_id == self.tenant_id)
        if self.name is not None:
            statement = statement.where(_user.c.name == self.name)
        if self.tenant is not None:
            statement = statement.where(_tenant.c.name == self.tenant)
        return tuple(UserView(*row) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class UserById:
    """One user; `tenant_id` narrows to users of that tenant."""

    id: str
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> UserView:
        """Return the user; NotFoundError."""
        statement = _users.where(_user.c.id == self.id)
        if self.tenant_id is not None:
            statement = statement.where(_user.c.tenant_id == self.tenant_id)
        row = connection.execute(statement).first()
        if row is None:
            raise NotFoundError("user_not_found", f"there is no user {self.id!r}", field="user_id")
        return UserView(*row)


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys in order of identifier after `after`; `tenant_id` and `user_id` narrow."""

    after: str = ""
    limit: int = LIST_MAXIMUM
    tenant_id: str | None = None
    user_id: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[KeyView, ...]:
        """Return at most `limit` keys."""
        statement = _keys.where(_key.c.id > self.after).order_by(_key.c.id).limit(self.limit)
        if self.tenant_id is not None:
            statement = statement.where(_user.c.tenant_id == self.tenant_id)
        if self.user_id is not None:
            statement = statement.where(_key.c.user_id == self.user_id)
        return tuple(_key_view(tuple(row)) for row in connection.execute(statement))
