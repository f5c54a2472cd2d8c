"""Users, keys, and who the presented key speaks for.

Nobody can hand out more than they have: an admin makes users of the own tenant only, and a new key's scopes lie within the presented key's.
A secret leaves the service once, in the answer that made it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from api import answers, auth, clock, pages, permissions, problem_codes, replays, routing
from api.permissions import Needs, anyone
from api.replays import IdempotencyKey
from api.routes.tenants import check_own
from store import identity
from store.commands import Command
from store.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from store.identity import KeyView, Principal
from terrace.models.common import Page
from terrace.models.people import Identity, KeyAnswer, KeyCreate, KeyCreated, UserAnswer, UserCreate, UserSet

router = routing.router("/v1", "people")

WritesUsers = Annotated[Principal, Depends(Needs("users:write"))]
ReadsUsers = Annotated[Principal, Depends(Needs("users:read"))]
Keys = Annotated[Principal, Depends(Needs("keys:own", "keys:write"))]
Narrowing = Annotated[str | None, Query(max_length=63)]
_PAGE = problem_codes.responses("invalid_cursor")


@router.get("/me", response_model=Identity)
async def me(request: Request, principal: Annotated[Principal, Depends(anyone)]) -> Any:
    """Say who the presented key speaks for."""
    settings = request.app.state.settings
    return {
        "user_id": principal.user_id,
        "user": principal.user,
        "role": principal.role,
        "tenant": principal.tenant,
        "scopes": list(principal.scopes),
        "service_version": settings.service_version,
        "is_embedded": settings.is_embedded,
    }


@router.post(
    "/users",
    status_code=201,
    response_model=UserAnswer,
    responses=problem_codes.responses(
        "role_not_grantable", "tenant_not_found", "user_exists", "role_does_not_fit", *problem_codes.CREATION
    ),
)
async def create_user(request: Request, principal: WritesUsers, sent: UserCreate, key: IdempotencyKey = None) -> Response:
    """Make a user. A tenant's admin makes users of the own tenant."""
    tenant = sent.tenant
    if principal.tenant is not None:
        if sent.role not in identity.TENANT_ROLES:
            raise ForbiddenError("role_not_grantable", f"a tenant's admin cannot make a user with role {sent.role.value!r}", field="role")
        tenant = sent.tenant or principal.tenant
        if tenant != principal.tenant:
            raise NotFoundError("tenant_not_found", f"there is no tenant {tenant!r}", field="tenant")
    command = identity.CreateUser(clock.new_id("usr"), sent.name, sent.role.value, tenant, clock.now_ms())
    return await replays.create(request, principal, key=key, command=command, answer=answers.user)


@router.get("/users", response_model=Page[UserAnswer], responses=problem_codes.responses("invalid_cursor", "tenant_not_found"))
async def list_users(
    request: Request,
    principal: ReadsUsers,
    cursor: pages.Cursor = None,
    limit: pages.Limit = pages.LIMIT_DEFAULT,
    name: Narrowing = None,
    tenant: Narrowing = None,
) -> Any:
    """List users, oldest first; a tenant's admin sees those of the own tenant."""
    if tenant is not None:
        check_own(principal, tenant)
    query = identity.Users(pages.decode(cursor), limit, tenant_id=principal.tenant_id, name=name, tenant=tenant)
    found = await request.app.state.store.read(query)
    return {"items": [answers.user(item) for item in found], "next_cursor": pages.next_cursor(found, limit, lambda item: item.id)}


@router.patch("/users/{user_id}", response_model=UserAnswer, responses=problem_codes.responses("user_not_found", "cannot_disable_oneself"))
async def set_user(request: Request, principal: WritesUsers, user_id: str, sent: UserSet) -> Any:
    """Disable a user: its keys stop working, here at once, on other replicas within seconds. Or enable it again."""
    if user_id == principal.user_id and sent.is_disabled:
        raise ConflictError("cannot_disable_oneself", "is_disabled: this is the user whose key was presented", field="is_disabled")
    view = await request.app.state.store.run(identity.SetUser(user_id, sent.is_disabled, principal.tenant_id))
    request.app.state.authenticator.forget()
    return answers.user(view)


@router.post(
    "/keys",
    status_code=201,
    response_model=KeyCreated,
    responses=problem_codes.responses(
        "role_not_grantable",
        "scope_not_grantable",
        "expiry_not_grantable",
        "user_not_found",
        "expires_in_past",
        "node_does_not_fit",
        "unknown_node",
        "unknown_scope",
        "secret_shown_once",
        *problem_codes.CREATION,
    ),
)
async def create_key(request: Request, principal: Keys, sent: KeyCreate, key: IdempotencyKey = None) -> Response:
    """Make an API key: for oneself, for a user whom one may manage, or for a node's agent. The secret is in this answer only."""
    _check_scopes(principal, sent.scopes)
    now_ms = clock.now_ms()
    expires_at_ms = None if sent.expires_at is None else clock.to_ms(sent.expires_at)
    _check_expiry(principal, expires_at_ms, now_ms)
    secret = auth.new_secret()
    command: Command[KeyView]
    if sent.node is not None and sent.user_id is None:
        _need_keys_write(principal)
        if principal.tenant is not None:
            raise ForbiddenError("role_not_grantable", "only operators make keys for nodes", field="node")
        command = identity.CreateNodeKey(
            secret.key_id, clock.new_id("usr"), sent.name, secret.sha256, sent.node, expires_at_ms, now_ms, scopes=tuple(sent.scopes)
        )
    else:
        user_id = sent.user_id or principal.user_id
        if user_id != principal.user_id:
            _need_keys_write(principal)
        command = identity.CreateKey(
            secret.key_id,
            user_id,
            sent.name,
            secret.sha256,
            tuple(sent.scopes),
            sent.node,
            expires_at_ms,
            now_ms,
            tenant_id=principal.tenant_id,
        )

    def answer(view: KeyView) -> dict[str, Any]:
        return answers.key(view) | {"secret": secret.bearer}

    return await replays.create(request, principal, key=key, command=command, answer=answer, once="secret_shown_once")


@router.get("/keys", response_model=Page[KeyAnswer], responses=_PAGE)
async def list_keys(request: Request, principal: Keys, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT) -> Any:
    """List keys, oldest first, without their secrets: one's own, or those of everyone whom one may manage."""
    query = identity.Keys(pages.decode(cursor), limit, tenant_id=principal.tenant_id, user_id=_only_own(principal))
    found = await request.app.state.store.read(query)
    return {"items": [answers.key(item) for item in found], "next_cursor": pages.next_cursor(found, limit, lambda item: item.id)}


@router.delete("/keys/{key_id}", response_model=KeyAnswer, responses=problem_codes.responses("key_not_found"))
async def revoke_key(request: Request, principal: Keys, key_id: str) -> Any:
    """Revoke a key: here at once, on other replicas within seconds. Doing it again changes nothing."""
    command = identity.RevokeKey(key_id, clock.now_ms(), tenant_id=principal.tenant_id, user_id=_only_own(principal))
    view = await request.app.state.store.run(command)
    request.app.state.authenticator.forget(key_id)
    return answers.key(view)


def _may_manage(principal: Principal) -> bool:
    return "keys:write" in permissions.granted(principal.role, principal.scopes)


def _only_own(principal: Principal) -> str | None:
    return None if _may_manage(principal) else principal.user_id


def _need_keys_write(principal: Principal) -> None:
    if not _may_manage(principal):
        raise ForbiddenError("permission_missing", "this needs the permission keys:write", permission="keys:write", role=principal.role)


def _check_expiry(principal: Principal, expires_at_ms: int | None, now_ms: int) -> None:
    """A key that expires makes none that outlives it: otherwise a borrowed key is a key for ever."""
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidError("expires_in_past", "expires_at: lies in the past", field="expires_at", limit=clock.rfc3339(now_ms))
    own_ms = principal.expires_at_ms
    if own_ms is not None and (expires_at_ms is None or expires_at_ms > own_ms):
        message = "expires_at: must not lie after the presented key's own"
        raise ForbiddenError("expiry_not_grantable", message, field="expires_at", limit=clock.rfc3339(own_ms))


def _check_scopes(principal: Principal, scopes: list[str]) -> None:
    for position, scope in enumerate(scopes):
        if not permissions.is_known_scope(scope):
            limit = sorted(permissions.PERMISSIONS)
            raise InvalidError("unknown_scope", f"scopes[{position}]: {scope!r} grants nothing", field=f"scopes[{position}]", limit=limit)
        if not any(own in ("*", scope) or permissions.scope_covers(own, scope) for own in principal.scopes):
            message = f"scopes[{position}]: {scope!r} is more than the presented key has"
            raise ForbiddenError("scope_not_grantable", message, field=f"scopes[{position}]", limit=list(principal.scopes))
