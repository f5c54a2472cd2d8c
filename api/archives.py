"""Archives of working directories: taken in, judged before acceptance, and kept as files named by their hash.

Owns the files below `archives_dir` and how many are received at once. A body is written, hashed and judged in threads of this module's
own, so that a large one holds up no other request; the file is synced and renamed into place before its row is written. What a crash left
behind is swept at the next start. api/routes/archives.py calls this; the judgement is archive_judge.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from api import archive_judge, clock
from api.problems import TooLargeError, TooManyRequestsError, UnreadableError
from api.settings import ApiSettings
from store.errors import InvalidError

T = TypeVar("T")

BLOCK_BYTES = 1 << 20  # written and hashed at once
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
RETRY_SECONDS = 5
PART_SUFFIX = ".part"


def path_of(directory: Path, tenant_id: str, sha256: str) -> Path:
    """Return where an archive lies. Both names were checked by the caller: an identifier and 64 hexadecimal digits."""
    return directory / tenant_id / sha256


class Uploads:
    """Takes archives in."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._directory = settings.archives_dir
        self._under_way: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(settings.archive.uploads_maximum, "archives")

    async def take(self, chunks: AsyncIterator[bytes], tenant_id: str, sha256: str) -> int:
        """Keep a body under its hash and return its size in bytes; refused bodies leave nothing behind."""
        with self._place(tenant_id):
            part = self._directory / tenant_id / f".{secrets.token_hex(8)}{PART_SUFFIX}"
            try:
                received = await self._receive(chunks, part)
                if received != sha256:
                    raise InvalidError("archive_hash_differs", f"the body's SHA-256 is {received}", field="sha256", limit=sha256)
                return await self._in_thread(lambda: self._judge_and_keep(part, path_of(self._directory, tenant_id, sha256)))
            finally:
                await self._in_thread(lambda: part.unlink(missing_ok=True))

    def check_size(self, declared: str) -> None:
        """Refuse a body that says that it is too large, before any of it is read."""
        if declared.isdigit() and int(declared) > self._settings.archive.compressed_bytes_maximum:
            raise self._too_large()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def old_files(self) -> list[tuple[str, str]]:
        """Return (tenant identifier, SHA-256) of every file that no upload under way can have made. Blocking."""
        oldest_seconds = self._oldest_seconds()
        paths = (path for path in self._directory.glob("*/*") if not path.name.startswith("."))
        return [(path.parent.name, path.name) for path in paths if path.stat().st_mtime < oldest_seconds]

    def remove(self, tenant_id: str, sha256: str) -> None:
        """Delete the file of an archive that has no row any more, unless somebody uploaded it again just now. Blocking."""
        path = path_of(self._directory, tenant_id, sha256)
        aside = path.with_name(f".{secrets.token_hex(8)}{PART_SUFFIX}")
        try:
            path.rename(aside)  # whatever lies there now, and nothing that comes after
        except FileNotFoundError:
            return
        if aside.stat().st_mtime >= self._oldest_seconds():
            aside.rename(path)
        else:
            aside.unlink()

    async def withdraw(self, tenant_id: str, sha256: str) -> None:
        """Delete a file that was taken and then refused its row."""
        path = path_of(self._directory, tenant_id, sha256)
        await self._in_thread(lambda: path.unlink(missing_ok=True))

    def _oldest_seconds(self) -> float:
        return clock.now_ms() / 1_000 - 2 * self._settings.archive.upload_seconds_maximum

    def sweep(self) -> None:
        """Delete what uploads left behind that a crash interrupted: parts older than any upload can be. Blocking."""
        oldest_seconds = self._oldest_seconds()
        for part in self._directory.glob(f"*/.*{PART_SUFFIX}"):
            if part.stat().st_mtime < oldest_seconds:
                part.unlink(missing_ok=True)

    @contextmanager
    def _place(self, tenant_id: str) -> Iterator[None]:
        limits = self._settings.archive
        for name, count, maximum in (
            ("uploads_maximum", self._under_way.total(), limits.uploads_maximum),
            ("uploads_per_tenant_maximum", self._under_way[tenant_id], limits.uploads_per_tenant_maximum),
        ):
            if count >= maximum:
                message = f"{name} = {maximum} archives are being received already"
                raise TooManyRequestsError("too_many_uploads", message, limit=maximum, retry_after_seconds=RETRY_SECONDS)
        self._under_way[tenant_id] += 1
        try:
            yield
        finally:
            self._under_way[tenant_id] -= 1
            if not self._under_way[tenant_id]:
                del self._under_way[tenant_id]

    async def _receive(self, chunks: AsyncIterator[bytes], part: Path) -> str:
        """Write a body to a new file, synced; return its SHA-256. Refuses it as soon as it is over the limit."""
        limits = self._settings.archive
        digest = hashlib.sha256()
        file = await self._in_thread(lambda: _create(part))
        try:
            async with asyncio.timeout(limits.upload_seconds_maximum):
                size, block = 0, bytearray()
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limits.compressed_bytes_maximum:
                        raise self._too_large()
                    block += chunk
                    if len(block) >= BLOCK_BYTES:
                        await self._in_thread(_writing(file, digest, bytes(block)))
                        block.clear()
            await self._in_thread(_writing(file, digest, bytes(block), is_last=True))
        except TimeoutError:
            limit = limits.upload_seconds_maximum
            raise UnreadableError(408, "upload_too_slow", f"the archive was not here after {limit:.0f} s", limit=limit) from None
        finally:
            file.close()
        return digest.hexdigest()

    def _judge_and_keep(self, part: Path, final: Path) -> int:
        archive_judge.judge(part, limits=self._settings.archive)
        size_bytes = part.stat().st_size
        part.rename(final)
        _sync_directory(final.parent)
        return size_bytes

    def _too_large(self) -> TooLargeError:
        maximum = self._settings.archive.compressed_bytes_maximum
        return TooLargeError("archive_too_large", f"the archive is larger than {maximum} bytes", field="body", limit=maximum)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _create(part: Path) -> BinaryIO:
    part.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    return os.fdopen(descriptor, "wb", buffering=0)


def _writing(file: BinaryIO, digest: hashlib._Hash, block: bytes, *, is_last: bool = False) -> Callable[[], None]:
    def write() -> None:
        digest.update(block)
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
        if is_last:
            os.fsync(file.fileno())

    return write


def _sync_directory(directory: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
