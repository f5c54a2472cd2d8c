"""The entrypoint's output, read from its file as it grows.

Owns: the position in the file and whole characters across chunks. Does not own: the file (the entrypoint's shell line opens it) or pacing.
The file is the buffer: when the agent is slow we simply read later, and nothing is lost.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import IO

CHUNK_BYTES_MAX = 32 * 1024
TAIL_BYTES_MAX = 16 * 1024


class Output:
    """A growing file; offsets are bytes from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._offset = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def read(self, *, is_final: bool = False) -> tuple[int, str] | None:
        """Return (offset, text) of the next chunk, None when there is nothing new. `is_final` gives up an incomplete last character."""
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return None
        offset = self._offset
        block = self._file.read(CHUNK_BYTES_MAX)
        self._offset += len(block)
        text = self._decode(block, is_final and not block)
        return (offset, text) if text else None

    def tail(self) -> str:
        """Return the end of the output, for evidence."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, self._path.stat().st_size - TAIL_BYTES_MAX))
                return file.read(TAIL_BYTES_MAX).decode(errors="replace")
        except FileNotFoundError:
            return ""
