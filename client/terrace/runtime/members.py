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
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


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


def private_memory_bytes() -> int:
    """Return the resident memory of all descendants, without what they share through files and shared memory."""
    total = 0
    for pid in descendants():
        with contextlib.suppress(OSError):
            _, resident, shared = (int(field) for field in Path(f"/proc/{pid}/statm").read_text().split()[:3])
            total += max(0, resident - shared) * PAGE_BYTES
    return total


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
