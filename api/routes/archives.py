"""Archives: upload once by hash, ask whether one is there, and let agents read what their leases need.

An upload is streamed to a file, judged and renamed before its row exists, so a job can never name an archive that is not there.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import FileResponse

from api import archives, clock
from api.permissions import Needs
from api.routes.agents import Agent, check_node
from store.archives import ArchiveSize, RecordArchive
from store.assignments import HasLeaseOf
from store.errors import InvalidError, NotFoundError
from store.identity import Principal
from terrace.models.jobs import ArchiveAnswer

router = APIRouter(prefix="/v1", tags=["archives"])

Uploads = Annotated[Principal, Depends(Needs("archives:write"))]
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the archive's bytes, in hexadecimal.")]
TenantId = Annotated[str, Path(pattern=r"^[a-z]{2,8}_[0-9a-z]{20}$")]


@router.put("/archives/{sha256}", status_code=201, response_model=ArchiveAnswer, responses={200: {"model": ArchiveAnswer}})
async def upload_archive(request: Request, response: Response, principal: Uploads, sha256: Sha256) -> Any:
    """Take a gzipped tar of a working directory: 201 when it is new, 200 when it was there already."""
    store, settings = request.app.state.store, request.app.state.settings
    tenant_id = _tenant_id(principal)
    known = await store.read(ArchiveSize(tenant_id, sha256))
    if known is not None:
        response.status_code = 200
        return {"sha256": sha256, "size_bytes": known}
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > settings.archive.compressed_bytes_maximum:
        raise archives.too_large(settings.archive)
    temporary = archives.temporary_path(settings.archives_dir, tenant_id)
    try:
        received = await archives.receive(request.stream(), temporary, limits=settings.archive)
        if received != sha256:
            raise InvalidError("archive_hash_differs", f"the body's SHA-256 is {received}", field="sha256", limit=sha256)
        await asyncio.to_thread(archives.judge, temporary, limits=settings.archive)
        size_bytes = temporary.stat().st_size
        archives.keep(temporary, archives.path_of(settings.archives_dir, tenant_id, sha256))
    finally:
        temporary.unlink(missing_ok=True)
    await store.run(RecordArchive(tenant_id, sha256, size_bytes, clock.now_ms()))
    return {"sha256": sha256, "size_bytes": size_bytes}


@router.head("/archives/{sha256}", status_code=200)
async def has_archive(request: Request, principal: Uploads, sha256: Sha256) -> Response:
    """Say by 200 or 404 whether the tenant has this archive; Content-Length is of this answer, X-Archive-Bytes of the archive."""
    size_bytes = await request.app.state.store.read(ArchiveSize(_tenant_id(principal), sha256))
    if size_bytes is None:
        return Response(status_code=404)
    return Response(headers={"X-Archive-Bytes": str(size_bytes)})


@router.get("/nodes/{node}/archives/{tenant_id}/{sha256}", response_class=FileResponse)
async def read_archive(request: Request, agent: Agent, node: str, tenant_id: TenantId, sha256: Sha256) -> FileResponse:
    """Give an agent the archive of a job whose lease is on its node; otherwise it is missing."""
    check_node(agent, node)
    if not await request.app.state.store.read(HasLeaseOf(node, tenant_id, sha256)):
        raise NotFoundError("archive_not_found", "no lease on this node uses this archive", field="sha256")
    path = archives.path_of(request.app.state.settings.archives_dir, tenant_id, sha256)
    return FileResponse(path, media_type="application/gzip")


def _tenant_id(principal: Principal) -> str:
    if principal.tenant_id is None:
        raise InvalidError("no_tenant", "this key belongs to no tenant, so it has no archives")
    return principal.tenant_id
