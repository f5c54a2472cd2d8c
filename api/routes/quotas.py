"""Quotas: what is in force and held, setting a dated row, and the rules of tenants and projects.

A tenant's people see theirs; operators see and set all. Amounts are milli-GPU, milli-CPU or bytes by resource. Cohorts and the tree as a
whole have routes of their own (cohorts.py).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from api import answers, bases, clock, pages, problem_codes, routing
from api.permissions import Needs
from api.routes.tenants import check_own
from store import quotas
from store.engine import Store
from store.identity import Principal, TenantByName
from store.quota_nodes import QuotaNodeByName
from store.quota_rules import SetRules
from terrace.models.common import Page
from terrace.models.fleet import QuotaAnswer, QuotaSet
from terrace.models.scheduling import QuotaNodeAnswer, RulesAnswer, RulesSet

router = routing.router("/v1/quotas", "quotas")

Reads = Annotated[Principal, Depends(Needs("quotas:read"))]
Writes = Annotated[Principal, Depends(Needs("quotas:write"))]
ReadsTree = Annotated[Principal, Depends(Needs("quota_tree:read"))]
_ROW = ("unknown_resource", "empty_window", "nobody_to_borrow_from", "lending_over_nominal")
_OF_TENANT = ("tenant_not_found",)
_OF_PROJECT = ("tenant_not_found", "project_not_found")


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
    simulated = (await request.app.state.catalogs.fleet(is_fresh=True)).simulated_models
    return pages.cut(found, cursor, limit, key=_key, answer=lambda item: answers.quota(item) | {"is_simulated": item.resource in simulated})


@router.put("/{tenant}", response_model=QuotaAnswer, responses=problem_codes.responses(*_OF_TENANT, *_ROW))
async def set_tenant_quota(request: Request, principal: Writes, tenant: str, sent: QuotaSet) -> Any:
    """Set a tenant's quota of one resource from a moment on. Cutting below what is held stops nothing."""
    return await set_quota(request, principal, sent, tenant=tenant)


@router.put("/{tenant}/projects/{project}", response_model=QuotaAnswer, responses=problem_codes.responses(*_OF_PROJECT, *_ROW))
async def set_project_quota(request: Request, principal: Writes, tenant: str, project: str, sent: QuotaSet) -> Any:
    """Set a project's quota of one resource from a moment on."""
    return await set_quota(request, principal, sent, tenant=tenant, project=project)


@router.get("/{tenant}", response_model=QuotaNodeAnswer, responses=problem_codes.responses(*_OF_TENANT))
async def read_tenant_quota(request: Request, principal: ReadsTree, tenant: str) -> Any:
    """Return a tenant's node of the quota tree: rules, quotas in force, what it holds and its share."""
    return await read_node(request, tenant=tenant)


@router.get("/{tenant}/projects/{project}", response_model=QuotaNodeAnswer, responses=problem_codes.responses(*_OF_PROJECT))
async def read_project_quota(request: Request, principal: ReadsTree, tenant: str, project: str) -> Any:
    """Return a project's node of the quota tree; it has one where a project of its tenant has a quota."""
    return await read_node(request, tenant=tenant, project=project)


@router.patch("/{tenant}/rules", response_model=RulesAnswer, responses=problem_codes.responses(*_OF_TENANT, "borrows_with_fair_sharing"))
async def set_tenant_rules(request: Request, principal: Writes, tenant: str, sent: RulesSet) -> Any:
    """Change a tenant's rules: preemption, the choice among flavors, the cap of one user."""
    return await _set_rules(request, principal, sent, tenant=tenant)


@router.patch(
    "/{tenant}/projects/{project}/rules",
    response_model=RulesAnswer,
    responses=problem_codes.responses(*_OF_PROJECT, "borrows_with_fair_sharing"),
)
async def set_project_rules(request: Request, principal: Writes, tenant: str, project: str, sent: RulesSet) -> Any:
    """Change a project's rules; while all of them are the defaults, its tenant's hold."""
    return await _set_rules(request, principal, sent, tenant=tenant, project=project)


async def read_node(request: Request, *, tenant: str | None = None, project: str | None = None, cohort: str | None = None) -> Any:
    """Return the answer about one node of the tree."""
    return asdict(await request.app.state.store.read(QuotaNodeByName(clock.now_ms(), tenant, project, cohort)))


def _key(view: quotas.QuotaView) -> str:
    return f"{view.tenant}/{view.project or ''}/{view.resource}"


async def _set_rules(request: Request, principal: Principal, sent: RulesSet, *, tenant: str, project: str | None = None) -> Any:
    changes = sent.model_dump(mode="json", exclude_unset=True)
    base = bases.policy(request)
    return asdict(await request.app.state.store.run(SetRules(tenant, project, changes, base, clock.now_ms(), principal.user_id)))


async def set_quota(
    request: Request,
    principal: Principal,
    sent: QuotaSet,
    *,
    tenant: str | None = None,
    project: str | None = None,
    cohort: str | None = None,
) -> dict[str, Any]:
    """Add a quota row of a tenant, a project or a cohort and return the answer."""
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
        cohort=cohort,
        user_id=principal.user_id,
    )
    return answers.quota(await request.app.state.store.run(command))
