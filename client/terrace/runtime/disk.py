"""How much of the disk a lease's folders take, looked at again and again in a thread of its own.

Owns: the walk and its pace, which costs a twentieth of a CPU at most however many files there are. Does not own: the limit or what becomes
of who exceeds it (runner.py). A file with several names counts once. A file that is open and has no name any more is not seen.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Iterable

PAUSE_SECONDS_MIN = 5.0
PAUSE_PER_WALK = 20
BLOCK_BYTES = 512
FILES_MAX = 5_000_000  # of one walk; what lies beyond is not counted


class DiskWatch(threading.Thread):
    """Keeps `used_bytes` up to date until the process ends."""

    def __init__(self, folders: Iterable[str]) -> None:
        super().__init__(name="disk", daemon=True)
        self._folders = tuple(folders)
        self.used_bytes = 0

    def run(self) -> None:
        """Walk and rest."""
        pause = threading.Event()
        while True:
            began = time.monotonic()
            self.used_bytes = used_bytes(self._folders)
            pause.wait(max(PAUSE_SECONDS_MIN, PAUSE_PER_WALK * (time.monotonic() - began)))


def used_bytes(folders: Iterable[str]) -> int:
    """Return the bytes on disk of everything below these folders, the links themselves but nothing that they lead to."""
    left, total, files, linked = [*folders], 0, 0, set()
    while left and files < FILES_MAX:
        for entry in _entries(left.pop()):
            files += 1
            with contextlib.suppress(OSError):  # it went meanwhile
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    left.append(entry.path)
                elif status.st_nlink > 1:
                    if status.st_ino in linked:
                        continue
                    linked.add(status.st_ino)
                total += status.st_blocks * BLOCK_BYTES
    return total


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what is in a folder. One that its owner has closed is opened: it would be a place to hide."""
    for _ in range(2):
        try:
            with os.scandir(folder) as found:
                return [*found]
        except PermissionError:
            with contextlib.suppress(OSError):
                os.chmod(folder, 0o700)
        except OSError:
            break
    return []
