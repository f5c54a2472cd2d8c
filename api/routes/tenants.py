"""Tenants and their projects.

Operators make and change tenants; a tenant's own people see theirs only, and somebody else's is missing.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from api import answers, clock, pages, problem_codes, replays, routing
from api.permissions import Needs
from api.replays import IdempotencyKey
from store import identity
from store.errors import NotFoundError
from store.identity import Principal
from terrace.models.common import Page
from terrace.models.people import ProjectAnswer, ProjectCreate, TenantAnswer, TenantCreate, TenantSet

router = routing.router("/v1/tenants", "tenants")

Reads = Annotated[Principal, Depends(Needs("tenants:read"))]
Writes = Annotated[Principal, Depends(Needs("tenants:write"))]
ReadsProjects = Annotated[Principal, Depends(Needs("projects:read"))]
WritesProjects = Annotated[Principal, Depends(Needs("projects:write"))]
_MISSING = problem_codes.responses("tenant_not_found")


def check_own(principal: Principal, tenant: str) -> None:
    """Raise NotFoundError when the principal belongs to another tenant than the one named."""
    if principal.tenant is not None and principal.tenant != tenant:
        raise NotFoundError("tenant_not_found", f"there is no tenant {tenant!r}", field="tenant")


@router.post(
    "",
    status_code=201,
    response_model=TenantAnswer,
    responses=problem_codes.responses("tenant_exists", "unknown_cohort", "quota_tree_too_deep", *problem_codes.CREATION),
)
async def create_tenant(request: Request, principal: Writes, sent: TenantCreate, key: IdempotencyKey = None) -> Response:
    """Make a tenant with a project named `default`."""
    command = identity.CreateTenant(
        clock.new_id("ten"), clock.new_id("prj"), sent.name, sent.parent, sent.weight_milli, clock.now_ms(), principal.user_id
    )
    return await replays.create(request, principal, key=key, command=command, answer=answers.tenant)


@router.get("", response_model=Page[TenantAnswer], responses=problem_codes.responses("invalid_cursor"))
async def list_tenants(request: Request, principal: Reads, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT) -> Any:
    """List tenants in order of name; a tenant's own people get theirs."""
    found = await request.app.state.store.read(identity.Tenants(pages.decode(cursor), limit, name=principal.tenant))
    return {"items": [answers.tenant(item) for item in found], "next_cursor": pages.next_cursor(found, limit, lambda item: item.name)}


@router.get("/{tenant}", response_model=TenantAnswer, responses=_MISSING)
async def read_tenant(request: Request, principal: Reads, tenant: str) -> Any:
    """Return a tenant."""
    check_own(principal, tenant)
    return answers.tenant(await request.app.state.store.read(identity.TenantByName(tenant)))


@router.patch(
    "/{tenant}",
    response_model=TenantAnswer,
    responses=problem_codes.responses("tenant_not_found", "unknown_cohort", "quota_tree_too_deep", "nobody_to_borrow_from"),
)
async def set_tenant(request: Request, principal: Writes, tenant: str, sent: TenantSet) -> Any:
    """Change a tenant's weight, move it to a cohort (null: none), or suspend it: its keys stop working, its running jobs go on."""
    command = identity.SetTenant(
        tenant,
        sent.weight_milli,
        sent.is_suspended,
        clock.now_ms(),
        principal.user_id,
        is_moved="parent" in sent.model_fields_set,
        parent=sent.parent,
    )
    view = await request.app.state.store.run(command)
    request.app.state.authenticator.forget()
    return answers.tenant(view)


@router.post(
    "/{tenant}/projects",
    status_code=201,
    response_model=ProjectAnswer,
    responses=problem_codes.responses("tenant_not_found", "project_exists", *problem_codes.CREATION),
)
async def create_project(
    request: Request, principal: WritesProjects, tenant: str, sent: ProjectCreate, key: IdempotencyKey = None
) -> Response:
    """Make a project in a tenant."""
    check_own(principal, tenant)
    command = identity.CreateProject(clock.new_id("prj"), tenant, sent.name, clock.now_ms(), principal.user_id)
    return await replays.create(request, principal, key=key, command=command, answer=answers.project)


@router.get(
    "/{tenant}/projects",
    response_model=Page[ProjectAnswer],
    responses=problem_codes.responses("tenant_not_found", "invalid_cursor"),
)
async def list_projects(
    request: Request, principal: ReadsProjects, tenant: str, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT
) -> Any:
    """List a tenant's projects in order of name."""
    check_own(principal, tenant)
    found = await request.app.state.store.read(identity.Projects(tenant, pages.decode(cursor), limit))
    return {"items": [answers.project(item) for item in found], "next_cursor": pages.next_cursor(found, limit, lambda item: item.name)}
