"""Archives: upload once by hash, ask whether one is there, and let agents read what their leases need.

An upload is streamed to a file, judged and renamed before its row exists, so a job can never name an archive that is not there. How that is
done is api/archives.py.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request, Response
from fastapi.responses import FileResponse

from api import archives, clock, problem_codes, routing
from api.archives import Uploads
from api.permissions import Needs
from api.routes.agents import Agent, check_node
from store.archives import ArchiveSize, KeptArchives, RecordArchive, Room
from store.assignments import HasLeaseOf
from store.engine import Store
from store.errors import ConflictError, InvalidError, NotFoundError
from store.identity import Principal
from terrace.models.jobs import ArchiveAnswer

router = routing.router("/v1", "archives")

Writes = Annotated[Principal, Depends(Needs("archives:write"))]
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the archive's bytes, in hexadecimal.")]
TenantId = Annotated[str, Path(pattern=r"^[a-z]{2,8}_[0-9a-z]{20}$")]
_GZIP = {"application/gzip": {"schema": {"type": "string", "contentMediaType": "application/gzip"}}}
_REFUSALS = problem_codes.responses(
    "no_tenant", "archive_quota_exceeded", "archive_too_large", "archive_hash_differs", "archive_header_too_large", "archive_malformed",
    "archive_member_kind", "archive_member_path", "archive_ratio", "archive_too_many_members", "archive_unpacks_too_large",
    "too_many_uploads", "upload_too_slow",
    also={200: {"model": ArchiveAnswer, "description": "It was there already."}},
)  # fmt: skip


@router.put(
    "/archives/{sha256}",
    status_code=201,
    response_model=ArchiveAnswer,
    responses=_REFUSALS,
    openapi_extra={"requestBody": {"required": True, "content": _GZIP}},
)
async def upload_archive(request: Request, response: Response, principal: Writes, sha256: Sha256) -> Any:
    """Take a gzipped tar of a working directory: 201 when it is new, 200 when it was there already."""
    store: Store = request.app.state.store
    uploads: Uploads = request.app.state.uploads
    tenant_id = _tenant_id(principal)
    limits = request.app.state.settings.archive
    room = Room(limits.bytes_per_tenant_maximum, limits.archives_per_tenant_maximum)
    known = await store.read(ArchiveSize(tenant_id, sha256))
    if known is not None:
        response.status_code = 200
        return {"sha256": sha256, "size_bytes": known}
    declared = request.headers.get("content-length", "0")
    uploads.check_size(declared)
    (await store.read(KeptArchives(tenant_id))).check(room, int(declared) if declared.isdigit() else 0)
    size_bytes = await uploads.take(request.stream(), tenant_id, sha256)
    try:
        await store.run(RecordArchive(tenant_id, sha256, size_bytes, clock.now_ms(), room))
    except ConflictError:
        await uploads.withdraw(tenant_id, sha256)
        raise
    return {"sha256": sha256, "size_bytes": size_bytes}


@router.head("/archives/{sha256}", status_code=200, response_class=Response, responses=problem_codes.responses("archive_not_found"))
async def has_archive(request: Request, principal: Writes, sha256: Sha256) -> Response:
    """Say by 200 or 404 whether the tenant has this archive; Content-Length is of this answer, X-Archive-Bytes of the archive."""
    size_bytes = await request.app.state.store.read(ArchiveSize(_tenant_id(principal), sha256))
    if size_bytes is None:
        raise NotFoundError("archive_not_found", "the tenant does not have this archive", field="sha256")
    return Response(headers={"X-Archive-Bytes": str(size_bytes)})


@router.get(
    "/nodes/{node}/archives/{tenant_id}/{sha256}",
    response_class=FileResponse,
    responses=problem_codes.responses("node_not_found", "archive_not_found", also={200: {"content": _GZIP}}),
)
async def read_archive(request: Request, agent: Agent, node: str, tenant_id: TenantId, sha256: Sha256) -> FileResponse:
    """Give an agent the archive of a job whose lease is on its node; otherwise it is missing."""
    check_node(agent, node)
    path = archives.path_of(request.app.state.settings.archives_dir, tenant_id, sha256)
    if not await request.app.state.store.read(HasLeaseOf(node, tenant_id, sha256)) or not path.is_file():
        raise NotFoundError("archive_not_found", "no lease on this node uses this archive", field="sha256")
    return FileResponse(path, media_type="application/gzip")


def _tenant_id(principal: Principal) -> str:
    if principal.tenant_id is None:
        raise InvalidError("no_tenant", "this key belongs to no tenant, so it has no archives")
    return principal.tenant_id
