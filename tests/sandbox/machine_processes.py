"""The machine's processes as a test sees them from outside: who is below whom, in which network, with which open ports."""

from __future__ import annotations

import os

import psutil

from agents.sandbox import procfs


def below(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        root = psutil.Process(pid)
        return [pid, *(process.pid for process in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def open_ports(pids: list[int]) -> list[tuple[str, int]]:
    """Return the sockets of these processes that listen in the machine's own network."""
    return procfs.listening_ports(pids)


def networks(pids: list[int]) -> set[str]:
    """Return the network namespaces of these processes, as far as we may know them."""
    found = set()
    for pid in pids:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            continue
    return found


def own_network() -> str:
    """Return our network namespace."""
    return os.readlink("/proc/self/ns/net")


def sleeping(seconds: str) -> list[int]:
    """Return the processes that run `sleep SECONDS`: a number that nobody else uses finds them whatever became of their parents."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", seconds]]
