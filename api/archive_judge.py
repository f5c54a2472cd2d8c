"""Judging an archive by reading it as a stream, never by unpacking it.

An archive is a gzipped tar of plain files and directories with relative paths. What a member may be stands in
terrace.runtime.archive_rules, which agents hold against it again when they unpack it; owned here is whatever grows beyond named limits:
bytes, ratio, headers, gzip members. Every loop over what was sent is bounded by what came out of it, so that no archive costs more work
than its size allows. Blocking; api/archives.py calls it in a thread.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

from api.settings import ArchiveLimits
from store.errors import InvalidError
from terrace.runtime.archive_rules import MemberLimits, MemberRefusedError, Members

READ_BYTES = 1 << 16
HEADER_BYTES_MAXIMUM = 1 << 20  # of one tar member, and of gzip input that yields nothing
GZIP_MEMBERS_MAXIMUM = 64  # parallel compressors write a few; every one costs work and may be empty
GZIP_WINDOW_BITS = 31


def judge(path: Path, *, limits: ArchiveLimits) -> None:
    """Raise InvalidError unless the file is a gzipped tar that can be unpacked safely within the limits. Reads it once."""
    with path.open("rb") as file:
        counted = _Counted(_Unzipped(file), path.stat().st_size, limits)
        try:
            with tarfile.open(fileobj=counted, mode="r|", bufsize=READ_BYTES) as archive:  # type: ignore[call-overload]
                _judge_members(archive, counted, limits)
            while counted.read():  # what follows the tar's end is unpacked by nobody, but it must be whole and it must end
                pass
        except (tarfile.TarError, EOFError, zlib.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            _refuse("archive_malformed", f"is not a gzipped tar archive: {error}")
        except RecursionError:
            _refuse("archive_header_too_large", "has a member with too many headers", HEADER_BYTES_MAXIMUM)


@dataclass
class _Unzipped:
    """Decompresses a file piece by piece. GzipFile would read a header byte by byte and take members without end."""

    file: BinaryIO
    members: int = 0
    barren_bytes: int = 0  # input since the last output
    rest: bytes = b""
    source: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(GZIP_WINDOW_BITS))

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end; zlib.error, EOFError for a file that is cut or not gzip."""
        while True:
            if self.source.eof and not self._next_member():
                return b""
            sent = self.rest or self.file.read(READ_BYTES)
            if not sent:
                raise EOFError("it ends within its compressed data")
            data = self.source.decompress(sent, size)
            self.rest = self.source.unconsumed_tail or self.source.unused_data
            self.barren_bytes = 0 if data else self.barren_bytes + len(sent) - len(self.rest)
            if self.barren_bytes > HEADER_BYTES_MAXIMUM:
                _refuse("archive_malformed", "has compressed data that yields nothing", HEADER_BYTES_MAXIMUM)
            if data:
                return data

    def _next_member(self) -> bool:
        """Begin the next gzip member; False at the end of the file, which zeros may pad."""
        while not (padded := (self.rest or self.file.read(READ_BYTES)).lstrip(b"\0")):
            self.rest = b""
            if not self.file.peek(1):  # type: ignore[attr-defined]  # a buffered reader has it
                return False
        self.rest = padded
        self.members += 1
        if self.members >= GZIP_MEMBERS_MAXIMUM:
            _refuse("archive_malformed", "consists of too many gzip members", GZIP_MEMBERS_MAXIMUM)
        self.source = zlib.decompressobj(GZIP_WINDOW_BITS)
        return True


@dataclass
class _Counted:
    """Counts what comes out of decompression, so that a bomb is refused while it unfolds."""

    source: _Unzipped
    compressed_bytes: int
    limits: ArchiveLimits
    unpacked_bytes: int = 0
    next_member_bytes: int = HEADER_BYTES_MAXIMUM  # the next member's header must have ended by here

    def read(self, size: int = READ_BYTES) -> bytes:
        """Return the next bytes; InvalidError when there are more than the limits allow."""
        data = self.source.read(min(size, READ_BYTES) if size >= 0 else READ_BYTES)
        self.unpacked_bytes += len(data)
        if self.unpacked_bytes > self.limits.unpacked_bytes_maximum:
            _refuse_size(self.limits)
        if self.unpacked_bytes > self.next_member_bytes + READ_BYTES:
            _refuse("archive_header_too_large", "has a member whose header is too large", HEADER_BYTES_MAXIMUM)
        is_large = self.unpacked_bytes > self.limits.ratio_floor_bytes
        if is_large and self.unpacked_bytes > self.limits.ratio_maximum * self.compressed_bytes:
            _refuse("archive_ratio", "unpacks to too many times its size", self.limits.ratio_maximum)
        return data


def _judge_members(archive: tarfile.TarFile, counted: _Counted, limits: ArchiveLimits) -> None:
    members = Members(MemberLimits(members=limits.members_maximum, path_bytes=limits.path_length_maximum))
    for member in archive:
        try:
            members.take(member)
        except MemberRefusedError as error:
            raise InvalidError(error.rule.value, f"the archive: {error}", field="body", limit=error.limit) from error
        if not 0 <= member.size <= limits.unpacked_bytes_maximum:  # tarfile would go on reading until it had that much
            _refuse_size(limits)
        counted.next_member_bytes = member.offset_data + member.size + HEADER_BYTES_MAXIMUM


def _refuse_size(limits: ArchiveLimits) -> NoReturn:
    _refuse("archive_unpacks_too_large", "unpacks to more than is allowed", limits.unpacked_bytes_maximum)


def _refuse(code: str, what: str, limit: int | None = None) -> NoReturn:
    raise InvalidError(code, f"the archive {what}" + (f"; the limit is {limit}" if limit is not None else ""), field="body", limit=limit)
