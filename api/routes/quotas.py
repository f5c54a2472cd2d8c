"""Quotas: what is in force and held, and setting a dated row.

A tenant's people see theirs; operators see and set all. Amounts are milli-GPU, milli-CPU or bytes by resource.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Request

from api import answers, clock, pages, problem_codes, routing
from api.permissions import Needs
from api.routes.tenants import check_own
from store import quotas
from store.engine import Store
from store.identity import Principal, TenantByName
from terrace.models.common import Page
from terrace.models.fleet import QuotaAnswer, QuotaSet

router = routing.router("/v1/quotas", "quotas")

Reads = Annotated[Principal, Depends(Needs("quotas:read"))]
Writes = Annotated[Principal, Depends(Needs("quotas:write"))]
_REFUSALS = problem_codes.responses("tenant_not_found", "unknown_resource", "empty_window", "nobody_to_borrow_from")


@router.get("", response_model=Page[QuotaAnswer], responses=problem_codes.responses("tenant_not_found", "invalid_cursor"))
async def list_quotas(
    request: Request,
    principal: Reads,
    tenant: Annotated[str | None, Query(max_length=63, description="One tenant; otherwise all that the key may see.")] = None,
    cursor: pages.Cursor = None,
    limit: pages.Limit = pages.LIMIT_DEFAULT,
) -> Any:
    """List quotas in force with what is held and queued against them, in order of tenant, project and resource."""
    store: Store = request.app.state.store
    tenant_id = principal.tenant_id
    if tenant is not None:
        check_own(principal, tenant)
        tenant_id = (await store.read(TenantByName(tenant))).id
    found = await store.read(quotas.QuotasInForce(clock.now_ms(), tenant_id))
    return pages.cut(found, cursor, limit, key=_key, answer=answers.quota)


@router.put("/{tenant}", response_model=QuotaAnswer, responses=_REFUSALS)
async def set_tenant_quota(request: Request, principal: Writes, tenant: str, sent: QuotaSet) -> Any:
    """Set a tenant's quota of one resource from a moment on. Cutting below what is held stops nothing."""
    return await _set(request, tenant, None, sent)


@router.put(
    "/{tenant}/projects/{project}",
    response_model=QuotaAnswer,
    responses=problem_codes.responses("tenant_not_found", "project_not_found", "unknown_resource", "empty_window", "nobody_to_borrow_from"),
)
async def set_project_quota(request: Request, principal: Writes, tenant: str, project: str, sent: QuotaSet) -> Any:
    """Set a project's quota of one resource from a moment on."""
    return await _set(request, tenant, project, sent)


def _key(view: quotas.QuotaView) -> str:
    return f"{view.tenant}/{view.project or ''}/{view.resource}"


async def _set(request: Request, tenant: str, project: str | None, sent: QuotaSet) -> dict[str, Any]:
    now_ms = clock.now_ms()
    command = quotas.SetQuota(
        id=clock.new_id("quo"),
        tenant=tenant,
        project=project,
        resource=sent.resource,
        nominal=sent.nominal,
        borrowing_limit=sent.borrowing_limit,
        lending_limit=sent.lending_limit,
        valid_from_ms=clock.to_ms(sent.valid_from) if sent.valid_from else now_ms,
        valid_until_ms=clock.to_ms(sent.valid_until) if sent.valid_until else None,
        now_ms=now_ms,
    )
    return answers.quota(await request.app.state.store.run(command))
