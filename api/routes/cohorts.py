"""Cohorts, the quota tree as a whole, and the import of quotas from Kueue's manifests.

Operators make and change cohorts; finance may look. Tenants see none of this: the tree tells of everybody.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from api import bases, clock, kueue_import, pages, problem_codes, replays, routing
from api.permissions import Needs
from api.replays import IdempotencyKey
from api.routes import quotas
from store import cohorts
from store.calendar import PolicyInForce
from store.engine import Store
from store.errors import InvalidError
from store.identity import Principal
from store.quota_import import Imported, ImportQuotas, RehearsedError, RehearseImport
from store.quota_nodes import QuotaTree
from terrace.models.common import Page
from terrace.models.fleet import QuotaAnswer, QuotaSet
from terrace.models.scheduling import (
    CohortAnswer,
    CohortCreate,
    CohortSet,
    QuotaImport,
    QuotaImportAnswer,
    QuotaNodeAnswer,
    QuotaTreeAnswer,
)

router = routing.router("/v1", "quotas")

Reads = Annotated[Principal, Depends(Needs("quota_tree:read"))]
Writes = Annotated[Principal, Depends(Needs("quotas:write"))]
_MISSING = problem_codes.responses("cohort_not_found")
_ROW = ("unknown_resource", "empty_window", "nobody_to_borrow_from", "lending_over_nominal")
_PLACE = ("unknown_cohort", "quota_tree_too_deep")


@router.get("/quota-tree", response_model=QuotaTreeAnswer)
async def read_quota_tree(request: Request, principal: Reads) -> Any:
    """Return the quota tree as it stands: rules, quotas in force, what is held, and shares."""
    found = await request.app.state.store.read(QuotaTree(clock.now_ms()))
    return {"nodes": [asdict(node) for node in found]}


@router.post(
    "/quota-imports",
    response_model=QuotaImportAnswer,
    responses=problem_codes.responses(
        "manifest_refused", "flavors_of_one_model", "unknown_resource", "lending_over_nominal", "nobody_to_borrow_from", "cohort_ring",
        "quota_tree_too_deep", "unknown_cohort", "borrows_with_fair_sharing", "cohort_exists", "tenant_exists", "project_exists",
    ),
)  # fmt: skip
async def import_quotas(request: Request, principal: Writes, sent: QuotaImport) -> Any:
    """Make the quotas that Kueue's manifests describe, all or nothing; again changes nothing. With `is_dry_run`, only say what would be."""
    store: Store = request.app.state.store
    base = bases.policy(request)
    texts: dict[str, str] = {}
    for position, manifest in enumerate(sent.manifests):
        if manifest.name in texts:
            field = f"manifests[{position}].name"
            raise InvalidError("invalid_request", f"{field}: {manifest.name!r} is named twice", field=field)
        texts[manifest.name] = manifest.text
    is_fair = (await store.read(PolicyInForce(base))).fair_sharing
    read = await asyncio.to_thread(kueue_import.read, texts, sent.models, gpu_resource=sent.gpu_resource, is_fair=is_fair)
    wanted = ImportQuotas(read.cohorts, read.tenants, base, clock.now_ms(), principal.user_id)
    imported = await (_rehearsed(store, wanted) if sent.is_dry_run else store.run(wanted))
    kept = [f"{name}: its quota of {resource} stays: the manifests do not name it" for name, resource in imported.kept]
    changes = [asdict(change) for change in imported.changes]
    return {"is_applied": not sent.is_dry_run, "changes": changes, "left_out": [*read.left_out, *kept]}


async def _rehearsed(store: Store, wanted: ImportQuotas) -> Imported:
    try:
        await store.run(RehearseImport(wanted))
    except RehearsedError as done:
        return done.imported
    raise AssertionError("a rehearsal always ends in an error")


@router.post(
    "/cohorts",
    status_code=201,
    response_model=CohortAnswer,
    responses=problem_codes.responses("cohort_exists", *_PLACE, *problem_codes.CREATION),
)
async def create_cohort(request: Request, principal: Writes, sent: CohortCreate, key: IdempotencyKey = None) -> Response:
    """Make a cohort: an inner node of the quota tree."""
    command = cohorts.CreateCohort(sent.name, sent.parent, sent.weight_milli, clock.now_ms(), principal.user_id)
    return await replays.create(request, principal, key=key, command=command, answer=asdict)


@router.get("/cohorts", response_model=Page[CohortAnswer], responses=problem_codes.responses("invalid_cursor"))
async def list_cohorts(request: Request, principal: Reads, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT) -> Any:
    """List cohorts in order of name."""
    found = await request.app.state.store.read(cohorts.Cohorts(pages.decode(cursor), limit))
    return {"items": [asdict(item) for item in found], "next_cursor": pages.next_cursor(found, limit, lambda item: item.name)}


@router.get("/cohorts/{cohort}", response_model=QuotaNodeAnswer, responses=_MISSING)
async def read_cohort(request: Request, principal: Reads, cohort: str) -> Any:
    """Return a cohort's node of the quota tree."""
    return await quotas.read_node(request, cohort=cohort)


@router.patch(
    "/cohorts/{cohort}",
    response_model=CohortAnswer,
    responses=problem_codes.responses("cohort_not_found", "cohort_ring", "nobody_to_borrow_from", *_PLACE),
)
async def set_cohort(request: Request, principal: Writes, cohort: str, sent: CohortSet) -> Any:
    """Change a cohort's weight, or move it with all that stands below it. `parent` null makes it a root."""
    is_moved = "parent" in sent.model_fields_set
    command = cohorts.SetCohort(cohort, is_moved, sent.parent, sent.weight_milli, clock.now_ms(), principal.user_id)
    return asdict(await request.app.state.store.run(command))


@router.delete("/cohorts/{cohort}", response_model=CohortAnswer, responses=problem_codes.responses("cohort_not_found", "cohort_not_empty"))
async def delete_cohort(request: Request, principal: Writes, cohort: str) -> Any:
    """Take an empty cohort away, with its quotas."""
    return asdict(await request.app.state.store.run(cohorts.DeleteCohort(cohort, clock.now_ms(), principal.user_id)))


@router.put("/cohorts/{cohort}/quota", response_model=QuotaAnswer, responses=problem_codes.responses("cohort_not_found", *_ROW))
async def set_cohort_quota(request: Request, principal: Writes, cohort: str, sent: QuotaSet) -> Any:
    """Set what a cohort owns of one resource from a moment on: a pool that all below it share."""
    return await quotas.set_quota(request, principal, sent, cohort=cohort)
