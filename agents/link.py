"""The agent's only way out: HTTP requests to the service, with the node's token.

Owns the requests and what their failures mean: `LinkDownError` (the service cannot be reached or is unwell: try again later) and
`LinkRefusedError` (it understood and said no: the same request will be refused again). Does not own when to ask (daemon.py,
reporting.py). Nothing ever connects to an agent; one on a machine behind a firewall works the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from agents.settings import AgentSettings
from terrace.models.agents import Assignments, InventoryReport, ObservationAccepted, ObservationBatch

T = TypeVar("T", bound=BaseModel)

# The key may be wrong for a while (a rotated one not yet here), the queue full, the service starting: all of these pass.
PASSING = frozenset({401, 403, 404, 408, 425, 429})
MESSAGE_CHARACTERS_MAXIMUM = 500
POLL_MARGIN_SECONDS = 10.0
ARCHIVE_BLOCK_BYTES = 1024 * 1024


class LinkError(Exception):
    """A request did not succeed."""


class LinkDownError(LinkError):
    """The service cannot be reached, or not now: trying again later is right."""


class ArchiveDamagedError(LinkDownError):
    """What arrived is not the archive that was named."""


class LinkRefusedError(LinkError):
    """The service refused the request for good; `status` is its answer's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"refused with {status}: {message}")
        self.status = status


class Link:
    """A connection pool to the service, speaking for one node."""

    def __init__(self, settings: AgentSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Make the pool; nothing is sent yet. `transport` is for tests without a socket."""
        self._settings = settings
        self._path = f"/v1/nodes/{settings.devices.node_name}"
        self._client = httpx.AsyncClient(
            base_url=settings.api_url,
            headers={"Authorization": f"Bearer {settings.token}"},
            timeout=settings.request_seconds,
            trust_env=False,  # the service is named by settings; a proxy of somebody's shell is not meant for it
            transport=transport,
        )

    async def send_inventory(self, report: InventoryReport) -> None:
        """Say what this node has."""
        await self._request("POST", f"{self._path}/inventory", content=report.model_dump_json())

    async def assignments(self, cursor: str | None) -> Assignments:
        """Return the node's leases, as soon as they differ from what `cursor` stands for, or after the long poll."""
        wait_seconds = self._settings.long_poll_seconds
        query = {"wait_seconds": str(wait_seconds)} | ({"cursor": cursor} if cursor else {})
        answer = await self._request("GET", f"{self._path}/assignments", params=query, timeout=wait_seconds + POLL_MARGIN_SECONDS)
        return _parsed(Assignments, answer)

    async def send_observations(self, batch: ObservationBatch) -> int:
        """Send a batch and return the number through which the service has everything; LinkRefusedError for one that cannot be written."""
        try:
            content = batch.model_dump_json()
        except ValueError as error:
            raise LinkRefusedError(0, f"this batch has no JSON: {error}") from error
        answer = await self._request("POST", f"{self._path}/observations", content=content)
        return _parsed(ObservationAccepted, answer).accepted_through_seq

    async def fetch_archive(self, tenant_id: str, sha256: str, target: Path) -> None:
        """Download an archive to `target` and check its hash; LinkRefusedError when it is too large. The caller bounds the time."""
        digest, size_bytes = hashlib.sha256(), 0
        path, maximum = f"{self._path}/archives/{tenant_id}/{sha256}", self._settings.archive_bytes_maximum
        try:
            async with self._client.stream("GET", path) as answer:
                if not answer.is_success:
                    await answer.aread()
                    _raise(answer)
                with await asyncio.to_thread(target.open, "wb") as file:
                    async for block in answer.aiter_raw(ARCHIVE_BLOCK_BYTES):
                        size_bytes += len(block)
                        if size_bytes > maximum:
                            raise LinkRefusedError(413, f"archive: larger than archive_bytes_maximum = {maximum}")
                        await asyncio.to_thread(_take, block, digest, file)  # leases are watched meanwhile
        except httpx.HTTPError as error:
            raise LinkDownError(f"{path}: {error or type(error).__name__}") from error
        if digest.hexdigest() != sha256:
            raise ArchiveDamagedError(f"archive: its SHA-256 is {digest.hexdigest()}, not {sha256}")

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()

    async def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        if "content" in arguments:
            arguments["headers"] = {"Content-Type": "application/json"}
        try:
            answer = await self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise LinkDownError(f"{path}: {error or type(error).__name__}") from error
        if not answer.is_success:
            _raise(answer)
        return answer


def _take(block: bytes, digest: hashlib._Hash, file: BinaryIO) -> None:
    digest.update(block)
    file.write(block)


def _parsed(model: type[T], answer: httpx.Response) -> T:
    """Return the answer's body; what makes no sense comes from something in between, or from a service that is being replaced."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        raise LinkDownError(f"{answer.request.url.path}: the answer makes no sense: {error.errors()[0]['msg']}") from error


def _raise(answer: httpx.Response) -> None:
    message = answer.text[:MESSAGE_CHARACTERS_MAXIMUM]
    if answer.status_code >= 500 or answer.status_code in PASSING:
        raise LinkDownError(f"{answer.request.url.path}: {answer.status_code} {message}")
    raise LinkRefusedError(answer.status_code, message)
