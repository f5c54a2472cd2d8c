"""Quotas: what is in force and held, and setting a dated row.

A tenant's people see theirs; operators see and set all. Amounts are milli-GPU, milli-CPU or bytes by resource.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from api import answers, clock
from api.permissions import Needs
from store import quotas
from store.identity import Principal
from terrace.models.common import Page
from terrace.models.fleet import QuotaAnswer, QuotaSet

router = APIRouter(prefix="/v1/quotas", tags=["quotas"])

Reads = Annotated[Principal, Depends(Needs("quotas:read"))]
Writes = Annotated[Principal, Depends(Needs("quotas:write"))]


@router.get("", response_model=Page[QuotaAnswer])
async def list_quotas(request: Request, principal: Reads) -> Any:
    """List quotas in force with what is held and queued against them."""
    found = await request.app.state.store.read(quotas.QuotasInForce(clock.now_ms(), principal.tenant_id))
    return {"items": [answers.quota(item) for item in found]}


@router.put("/{tenant}", response_model=QuotaAnswer)
async def set_tenant_quota(request: Request, principal: Writes, tenant: str, sent: QuotaSet) -> Any:
    """Set a tenant's quota of one resource from a moment on. Cutting below what is held stops nothing."""
    return await _set(request, tenant, None, sent)


@router.put("/{tenant}/projects/{project}", response_model=QuotaAnswer)
async def set_project_quota(request: Request, principal: Writes, tenant: str, project: str, sent: QuotaSet) -> Any:
    """Set a project's quota of one resource from a moment on."""
    return await _set(request, tenant, project, sent)


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
