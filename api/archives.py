"""Archives of working directories: taken in, judged before acceptance, and kept as files named by their hash.

Owns the files below `archives_dir`. An archive is a gzipped tar of plain files and directories with relative paths. It is judged by reading
it as a stream, never by unpacking it: a member that would leave the directory, any kind of link or device, and anything that grows beyond
named limits is refused. The file is synced and renamed into place before its row is written. api/routes/archives.py calls this.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import tarfile
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from api.problems import TooLargeError
from api.settings import ArchiveLimits
from store.errors import InvalidError

READ_BYTES = 1 << 16
HEADER_BYTES_MAXIMUM = 1 << 20  # of one member; tarfile keeps long names and pax headers in memory
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
NAME_SHOWN_MAXIMUM = 200


def path_of(directory: Path, tenant_id: str, sha256: str) -> Path:
    """Return where an archive lies. Both names were checked by the caller: an identifier and 64 hexadecimal digits."""
    return directory / tenant_id / sha256


async def receive(chunks: AsyncIterator[bytes], target: Path, *, limits: ArchiveLimits) -> str:
    """Write a body to a new file `target`, synced; return its SHA-256. TooLargeError as soon as it is over the limit."""
    digest = hashlib.sha256()
    size = 0
    with target.open("xb") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        async for chunk in chunks:
            size += len(chunk)
            if size > limits.compressed_bytes_maximum:
                raise too_large(limits)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def too_large(limits: ArchiveLimits) -> TooLargeError:
    """Return the refusal of an archive with too many bytes."""
    maximum = limits.compressed_bytes_maximum
    return TooLargeError("archive_too_large", f"the archive is larger than {maximum} bytes", field="body", limit=maximum)


def temporary_path(directory: Path, tenant_id: str) -> Path:
    """Return a new name beside the place where a tenant's archives lie, and make the directory."""
    place = directory / tenant_id
    place.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    return place / f".{secrets.token_hex(8)}.part"


def keep(temporary: Path, final: Path) -> None:
    """Move a judged archive to its name and make the move durable."""
    temporary.rename(final)
    descriptor = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass
class _Counted:
    """Reads a file and counts what came out of decompression, so that a bomb is refused while it unfolds."""

    source: gzip.GzipFile
    compressed_bytes: int
    limits: ArchiveLimits
    unpacked_bytes: int = 0
    next_member_bytes: int = HEADER_BYTES_MAXIMUM  # the next member's header must have ended by here

    def read(self, size: int = READ_BYTES) -> bytes:
        """Return the next bytes; InvalidError when there are more than the limits allow."""
        data = self.source.read(min(size, READ_BYTES) if size >= 0 else READ_BYTES)
        self.unpacked_bytes += len(data)
        if self.unpacked_bytes > self.limits.unpacked_bytes_maximum:
            _refuse("archive_unpacks_too_large", "unpacks to more than is allowed", self.limits.unpacked_bytes_maximum)
        if self.unpacked_bytes > self.next_member_bytes + READ_BYTES:
            _refuse("archive_header_too_large", "has a member whose header is too large", HEADER_BYTES_MAXIMUM)
        is_large = self.unpacked_bytes > self.limits.ratio_floor_bytes
        if is_large and self.unpacked_bytes > self.limits.ratio_maximum * self.compressed_bytes:
            _refuse("archive_ratio", "unpacks to too many times its size", self.limits.ratio_maximum)
        return data


def judge(path: Path, *, limits: ArchiveLimits) -> None:
    """Raise InvalidError unless the file is a gzipped tar that can be unpacked safely within the limits. Blocking; reads it once."""
    with gzip.open(path, "rb") as unzipped:
        counted = _Counted(unzipped, path.stat().st_size, limits)
        try:
            with tarfile.open(fileobj=counted, mode="r|", bufsize=READ_BYTES) as archive:  # type: ignore[call-overload]
                _judge_members(archive, counted, limits)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError, ValueError) as error:
            _refuse("archive_malformed", f"is not a gzipped tar archive: {error}")


def _judge_members(archive: tarfile.TarFile, counted: _Counted, limits: ArchiveLimits) -> None:
    for count, member in enumerate(archive, start=1):
        if count > limits.members_maximum:
            _refuse("archive_too_many_members", "has too many members", limits.members_maximum)
        _judge_member(member, limits)
        counted.next_member_bytes = member.offset_data + member.size + HEADER_BYTES_MAXIMUM


def _judge_member(member: tarfile.TarInfo, limits: ArchiveLimits) -> None:
    shown = repr(member.name[:NAME_SHOWN_MAXIMUM])
    if not (member.isfile() or member.isdir()):
        _refuse("archive_member_kind", f"has a member {shown} that is neither a file nor a directory (links and devices are not taken)")
    if member.issparse():
        _refuse("archive_member_kind", f"has a sparse member {shown}")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        _refuse("archive_member_path", f"has a member {shown} that lies outside the directory")
    if len(member.name) > limits.path_length_maximum:
        _refuse("archive_member_path", f"has a member {shown} with too long a path", limits.path_length_maximum)


def _refuse(code: str, what: str, limit: int | None = None) -> NoReturn:
    raise InvalidError(code, f"the archive {what}" + (f"; the limit is {limit}" if limit is not None else ""), field="body", limit=limit)
