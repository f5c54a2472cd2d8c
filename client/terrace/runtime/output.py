"""The entrypoint's output, read from its file as it grows.

Owns: the position in the file, whole characters across chunks, and the file's size on disk: what was read is given back to the file system,
and what goes beyond `PASSED_BYTES_MAX` is neither passed on nor kept. Does not own: who writes the file or pacing. The file is the buffer:
when the agent is slow we simply read later. It is made and opened before users' code runs, because afterwards its name may be anybody's.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
from pathlib import Path

CHUNK_BYTES_MAX = 32 * 1024
TAIL_BYTES_MAX = 16 * 1024
# The service keeps no more of an attempt; the chunk that crosses the limit still goes, so that it can say so.
PASSED_BYTES_MAX = 64 * 1024 * 1024
RELEASE_EVERY_BYTES = 4 * 1024 * 1024
KEPT_BYTES = 64 * 1024
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


class Output:
    """A growing file; offsets are bytes from its beginning."""

    def __init__(self, path: Path) -> None:
        """Make the file, for its writer to append to, and open it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._offset = self._released = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def read(self, *, is_final: bool = False) -> tuple[int, str] | None:
        """Return (offset, text) of the next chunk, None when there is nothing new. `is_final` gives up an incomplete last character."""
        if self._offset >= PASSED_BYTES_MAX:
            self._offset = os.fstat(self._file).st_size
            self._release()
            return None
        offset = self._offset
        block = os.pread(self._file, CHUNK_BYTES_MAX, offset)
        self._offset += len(block)
        self._release()
        text = self._decode(block, is_final and not block)
        return (offset, text) if text else None

    def tail(self) -> str:
        """Return the end of the output, for evidence."""
        size = os.fstat(self._file).st_size
        return os.pread(self._file, TAIL_BYTES_MAX, max(0, size - TAIL_BYTES_MAX)).decode(errors="replace")

    def _release(self) -> None:
        """Give the blocks of what was read back to the file system. Where it cannot punch holes the file just stays large."""
        end = self._offset - KEPT_BYTES
        if end - self._released < RELEASE_EVERY_BYTES:
            return
        with contextlib.suppress(AttributeError):  # a C library without fallocate
            mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            _libc.fallocate(self._file, mode, ctypes.c_int64(self._released), ctypes.c_int64(end - self._released))
        self._released = end
