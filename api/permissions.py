"""What each role may do, as data, and the dependency that asks.

Owns: the list of permissions, the table role -> permissions, and how scopes narrow them. It does not know tenants: routes pass
the principal's tenant to the store, where somebody else's object is missing. To add a permission, add it here; nothing else grants.
"""

from __future__ import annotations

from functools import lru_cache

from fastapi import Request

from api.auth import Authenticator
from store.errors import ForbiddenError
from store.identity import Principal

GRANTS_KEPT = 1_024

_TENANT_READ = {
    "jobs:read", "logs:read", "projects:read", "flavors:read", "prices:read", "quotas:read", "usage:read", "events:read", "keys:own",
    "tenants:read", "reservations:read",
}  # fmt: skip
_TENANT_WORK = _TENANT_READ | {"jobs:write", "archives:write", "estimates:write"}
_FLEET_READ = {
    "nodes:read", "flavors:read", "prices:read", "quotas:read", "tenants:read", "projects:read", "usage:read", "keys:own",
    "quota_tree:read", "reservations:read", "maintenance:read", "policy:read",
}  # fmt: skip

ROLE_PERMISSIONS: dict[str, frozenset[str]] = {
    "viewer": frozenset(_TENANT_READ),
    "member": frozenset(_TENANT_WORK),
    "admin": frozenset(_TENANT_WORK | {"projects:write", "users:read", "users:write", "keys:write"}),
    "finance": frozenset(_FLEET_READ | {"jobs:read", "prices:write"}),
    "operator": frozenset(
        _FLEET_READ
        | {
            "jobs:read", "jobs:cancel_any", "logs:read", "events:read", "tenants:write", "projects:write", "users:read", "users:write",
            "keys:write", "nodes:write", "prices:write", "quotas:write", "reservations:write", "maintenance:write", "policy:write",
        }
    ),
    "node": frozenset({"agents:speak"}),
}  # fmt: skip
PERMISSIONS = frozenset[str]().union(*ROLE_PERMISSIONS.values())


def scope_covers(scope: str, permission: str) -> bool:
    """Tell whether a scope grants a permission: `*`, `jobs:*` or the permission itself."""
    return scope in ("*", permission) or (scope.endswith(":*") and permission.startswith(scope[:-1]))


def is_known_scope(scope: str) -> bool:
    """Tell whether a scope grants any permission that exists."""
    return any(scope_covers(scope, permission) for permission in PERMISSIONS)


@lru_cache(maxsize=GRANTS_KEPT)
def granted(role: str, scopes: tuple[str, ...]) -> frozenset[str]:
    """Return the permissions of a key: its role's, narrowed by its scopes."""
    return frozenset(item for item in ROLE_PERMISSIONS.get(role, ()) if any(scope_covers(scope, item) for scope in scopes))


class Gate:
    """A dependency: the request's principal, whatever it may do. Asked once per request, before the body is read (routing.py)."""

    permissions: tuple[str, ...] = ()

    async def __call__(self, request: Request) -> Principal:
        """Return the principal; UnauthenticatedError, ForbiddenError."""
        admitted: dict[Gate, Principal] = request.scope.setdefault("terrace.admitted", {})
        principal = admitted.get(self)
        if principal is None:
            authenticator: Authenticator = request.app.state.authenticator
            principal = await authenticator.authenticate(request.headers.get("authorization"))
            self.check(principal)
            admitted[self] = principal
        return principal

    def check(self, principal: Principal) -> None:
        """Let everybody in who has a key that works."""


class Needs(Gate):
    """The principal, when its key grants one of the permissions; ForbiddenError otherwise."""

    def __init__(self, *permissions: str) -> None:
        unknown = set(permissions) - PERMISSIONS
        if unknown:
            raise ValueError(f"permissions: {sorted(unknown)} are granted to nobody")
        self.permissions = permissions

    def check(self, principal: Principal) -> None:
        """Raise ForbiddenError for a key without these permissions."""
        if granted(principal.role, principal.scopes).isdisjoint(self.permissions):
            raise ForbiddenError(
                "permission_missing",
                f"this needs the permission {' or '.join(self.permissions)}",
                permission=self.permissions[0],
                role=principal.role,
            )


anyone = Gate()
