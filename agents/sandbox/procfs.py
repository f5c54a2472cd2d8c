"""What the kernel says about processes: start times, children, members of a lease, listening ports.

Owns: reading /proc. Does not own: killing (supervise.py decides) or the accounting of a tree's use (agents/processes.py). A process is
identified by (pid, start time in clock ticks since boot): a recycled pid has another start time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
LISTEN_STATE = "0A"
ENVIRON_BYTES_MAX = 1024 * 1024
DEAD_STATES = {"Z", "X", "x"}


def boot_id() -> str:
    """Return the kernel's name for this boot: a handle of another boot names nothing that lives."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def started_at_ticks(pid: int) -> int | None:
    """Return when the process started, None when there is none or it is dead and only waits to be reaped.

    A dead first process of a PID namespace is proof that the namespace is empty: the kernel lets its last thread end only after every
    other member was killed and reaped. The state alone is no proof: it is the main thread's, and other threads may outlive that one.
    """
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    return None if state in DEAD_STATES and threads <= 1 else started


def is_alive(pid: int, started: int) -> bool:
    """True when that very process lives."""
    return started_at_ticks(pid) == started


def parent_of(pid: int) -> int | None:
    """Return the parent's pid, None when the process is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return int(text[text.rindex(")") + 2 :].split()[1])


def pids() -> Iterator[int]:
    """Yield every pid that can be seen now."""
    for name in os.listdir(PROC):
        if name.isdigit():
            yield int(name)


def only_child(pid: int) -> int | None:
    """Return the first child of the process, None when it has none."""
    return next((child for child in pids() if parent_of(child) == pid), None)


def owned_by(uid: int) -> list[int]:
    """Return the living processes of a user id."""
    found = []
    for pid in pids():
        try:
            owner = (PROC / str(pid)).stat().st_uid
            if owner != uid:
                owner = int((PROC / str(pid) / "status").read_text().split("\nUid:\t", 1)[1].split("\t", 1)[0])
        except (OSError, IndexError):
            continue
        if owner == uid and started_at_ticks(pid) is not None:
            found.append(pid)
    return found


def marked_with(variable: str, value: str) -> list[int]:
    """Return the living processes whose environment at start had `variable=value` and may be read by us."""
    wanted = f"{variable}={value}".encode()
    found = []
    for pid in pids():
        try:
            with (PROC / str(pid) / "environ").open("rb") as file:
                environment = file.read(ENVIRON_BYTES_MAX)
        except OSError:
            continue
        if wanted in environment.split(b"\0") and started_at_ticks(pid) is not None:
            found.append(pid)
    return found


def holding(folders: list[str], *, since_ticks: int) -> list[int]:
    """Return the living processes that stand in one of these folders or have a file below one open, as far as we may look.

    Those of before `since_ticks` are left out, and those with a terminal: that is a person who looks at the folder.
    """
    below = tuple(f"{os.path.realpath(folder)}/" for folder in folders)
    found = []
    for pid in pids():
        started = started_at_ticks(pid)
        if started is None or started < since_ticks or _has_terminal(pid):
            continue
        try:
            links = [f"{os.readlink(PROC / str(pid) / 'cwd')}/", *(os.readlink(entry.path) for entry in os.scandir(PROC / str(pid) / "fd"))]
        except OSError:
            continue
        if any(link.startswith(below) for link in links):
            found.append(pid)
    return found


def _has_terminal(pid: int) -> bool:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return False
    return int(text[text.rindex(")") + 2 :].split()[4]) != 0


def listening_ports(members: list[int]) -> list[tuple[str, int]]:
    """Return (address, port) of every TCP socket that these processes listen on; the address is loopback, any or other."""
    inodes = set()
    for pid in members:
        try:
            for entry in os.scandir(PROC / str(pid) / "fd"):
                link = os.readlink(entry.path)
                if link.startswith("socket:["):
                    inodes.add(link[8:-1])
        except OSError:
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        path = PROC / "self/net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == LISTEN_STATE and fields[9] in inodes:
                address, port = fields[1].split(":")
                ports.add((_kind(address), int(port, 16)))
    return sorted(ports)


def _kind(address: str) -> str:
    if not address.strip("0"):
        return "any"
    is_loopback = address.endswith("7F") if len(address) == 8 else address in {"0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}
    return "loopback" if is_loopback else "other"
