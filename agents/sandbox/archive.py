"""Unpacking what a user sent: a tar.gz of a working directory, from a stranger.

Owns: the checks and their limits. Does not own: the archive's hash (verified before) or where it goes (layout.py). Runs
as the lease's own user before the lease is entered (enter.py), so it uses the standard library only. The whole archive is
checked while it is unpacked, member by member, and the first refusal ends it: the caller throws the folder away.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

MIB = 1024 * 1024
COPY_BYTES = MIB


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds of one archive. `unpacked_bytes` counts what is written, headers included, so that sparse tricks do not help."""

    members: int = 20_000
    unpacked_bytes: int = 2_048 * MIB
    path_bytes: int = 1_024
    name_bytes: int = 255
    path_parts: int = 64


class ArchiveRefusedError(Exception):
    """The archive breaks a rule; the message names the member and the limit."""


class _Readable(Protocol):
    """As much of a file as a stream needs."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, empty at the end."""


class _Bounded:
    """A readable that refuses to give more than `limit` bytes: decompression is bounded before anything looks at it."""

    def __init__(self, source: _Readable, limit: int) -> None:
        self._source = source
        self._left = limit
        self._limit = limit

    def read(self, size: int = -1) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        block = self._source.read(wanted)
        self._left -= len(block)
        if self._left < 0:
            raise ArchiveRefusedError(f"archive: unpacks to more than unpacked_bytes = {self._limit}")
        return block


def unpack(archive: Path, target: Path, *, limits: ArchiveLimits = ArchiveLimits()) -> int:
    """Unpack into the existing empty folder `target`; return the number of files. ArchiveRefusedError says what is wrong.

    Only regular files and folders are accepted; owners and times are not taken over, and of the mode only "executable" is.
    """
    files = 0
    try:
        with gzip.open(archive, "rb") as plain, tarfile.open(fileobj=_Bounded(plain, limits.unpacked_bytes), mode="r|") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar, start=1):
                if number > limits.members:
                    raise ArchiveRefusedError(f"archive: more than members = {limits.members} entries")
                place = target.joinpath(*_parts(member, limits))
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    _write(tar, member, place)
                    files += 1
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise ArchiveRefusedError(f"archive: not a complete tar.gz file ({error})") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveRefusedError(f"archive: {error.filename}: named twice, or a file where a folder is needed") from error
    return files


def _parts(member: tarfile.TarInfo, limits: ArchiveLimits) -> tuple[str, ...]:
    """Return the checked relative path of the member; () for the archive's own root folder."""
    name = member.name
    shown = ascii(name[:200])
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ArchiveRefusedError(f"archive: {shown}: only files and folders are accepted, no links, devices, pipes or sparse files")
    if "\0" in name or len(os.fsencode(name)) > limits.path_bytes:
        raise ArchiveRefusedError(f"archive: {shown}: the path is longer than path_bytes = {limits.path_bytes} or has a NUL")
    path = PurePosixPath(name)
    if path.is_absolute():
        raise ArchiveRefusedError(f"archive: {shown}: absolute paths are not accepted")
    if ".." in path.parts:
        raise ArchiveRefusedError(f"archive: {shown}: '..' is not accepted in a path")
    if any(len(os.fsencode(part)) > limits.name_bytes for part in path.parts):
        raise ArchiveRefusedError(f"archive: {shown}: a name in the path is longer than name_bytes = {limits.name_bytes}")
    if len(path.parts) > limits.path_parts:
        raise ArchiveRefusedError(f"archive: {shown}: deeper than path_parts = {limits.path_parts}")
    return path.parts


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:
        raise ArchiveRefusedError(f"archive: {member.name[:200]!a}: has no content")
    mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    # O_EXCL: a name that comes twice is refused; there are no links in `target` to follow, because none is ever made.
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        while block := source.read(COPY_BYTES):
            file.write(block)
