"""The processes of the lease, seen from its first process: reaping, memory, ending them.

Owns: /proc as the runner sees it. Does not own: when to end (runner.py). In a PID namespace everything visible belongs to the lease and
dies with the runner; without one the runner is the subreaper of its descendants and kills until none is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
KILL_SECONDS_MAX = 20.0
KILL_ROUND_SECONDS = 0.02
KIB = 1024


def protect_runner() -> None:
    """Make this process unreadable for the lease's other processes (no ptrace, no /proc/PID/fd), and the parent of their orphans."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> dict[int, int]:
    """Collect every dead child; return exit codes by pid, negative for signals."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def descendants() -> list[int]:
    """Return the pids of all living processes below this one."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = (Path("/proc") / name / "stat").read_text()
                state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
                if state not in "ZX":
                    parents[int(name)] = int(parent)
    found = {os.getpid()}
    is_growing = True
    while is_growing:
        below = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= below
        is_growing = bool(below)
    return sorted(found - {os.getpid()})


def memory_bytes(*, limit: int, shm_bytes: int = 0) -> int:
    """Return the memory that all descendants use: their own, and each page that they share once. Files of a disk are not counted.

    `shm_bytes` is what the lease's /dev/shm holds, mapped or not. Counting pages once walks every page table, so it is done only when
    counting them in each process exceeds `limit`; at or below the limit the answer may therefore be too high.
    """
    own, sharing = 0, {}
    for pid in descendants():
        with contextlib.suppress(OSError):
            sizes = _sizes(f"/proc/{pid}/status")
            own += sizes.get("RssAnon", 0)
            sharing[pid] = sizes.get("RssShmem", 0)
    shared = sum(sharing.values())
    if own + shared > limit:
        shared = sum(_share(pid, resident) for pid, resident in sharing.items() if resident)
    return own + max(shared, shm_bytes)


def held_bytes(folder: Path) -> int:
    """Return how much the file system of a folder holds."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _share(pid: int, resident: int) -> int:
    """Return a process's part of the pages that it shares; all of them where it does not let us look, which it may choose."""
    try:
        return _sizes(f"/proc/{pid}/smaps_rollup").get("Pss_Shmem", resident)
    except OSError:
        return resident


def _sizes(path: str) -> dict[str, int]:
    """Return the sizes in a file of /proc, in bytes by their name."""
    fields = (line.split() for line in Path(path).read_text().splitlines())
    return {field[0].rstrip(":"): int(field[1]) * KIB for field in fields if len(field) == 3 and field[2] == "kB"}


def kernel_memory_kills() -> int:
    """Return how often the kernel killed for lack of memory since boot, 0 when it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def kill_all() -> bool:
    """Kill every descendant until none is left, those that appear meanwhile too; False when some could not be killed in 20 s."""
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while left := descendants():
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(KILL_ROUND_SECONDS)
    return True
