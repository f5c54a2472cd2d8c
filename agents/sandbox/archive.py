"""Unpacking what a user sent: a tar.gz of a working directory, from a stranger.

Owns: writing the files, and the bound on what comes out of decompression. Does not own: the rules for members
(terrace.runtime.archive_rules, which the API held against the archive too), the archive's hash (verified before) or where it goes
(launch.py). Runs as the lease's own user before the lease is entered (enter.py), so it uses the standard library only. The whole archive is
checked while it is unpacked, member by member, and the first refusal ends it: the caller throws the folder away.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from pathlib import Path
from typing import Protocol

from terrace.runtime import archive_rules

MIB = 1024 * 1024
COPY_BYTES = MIB
# Counts what decompression yields, headers included, so that sparse tricks do not help.
UNPACKED_BYTES_MAX = 2_048 * MIB


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


def unpack(
    archive: Path,
    target: Path,
    *,
    limits: archive_rules.MemberLimits = archive_rules.MemberLimits(),
    unpacked_bytes: int = UNPACKED_BYTES_MAX,
) -> int:
    """Unpack into the existing empty folder `target`; return the number of files. ArchiveRefusedError says what is wrong.

    Only regular files and folders are accepted; owners and times are not taken over, and of the mode only "executable" is.
    """
    files, members = 0, archive_rules.Members(limits)
    try:
        with gzip.open(archive, "rb") as plain, tarfile.open(fileobj=_Bounded(plain, unpacked_bytes), mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                place = target.joinpath(*members.take(member))
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    _write(tar, member, place)
                    files += 1
    except archive_rules.MemberRefusedError as error:
        raise ArchiveRefusedError(f"archive: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise ArchiveRefusedError(f"archive: not a complete tar.gz file ({error})") from error
    return files


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
