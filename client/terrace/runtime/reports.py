"""Progress reports on their way from users' code to the agent.

Owns: the socket that users' code writes to, and which reports are passed on while the agent is slow: none but the newest word of a
checkpoint, which waits. Does not own: what a report is (progress.py) or the line to the agent (channel.py). Called by runner.py.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from terrace.runtime import progress
from terrace.runtime.channel import Channel

REPORTS_PER_LOOK_MAX = 64


class Reports:
    """The runner's end of the socket, bound to a path of the lease."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._checkpoint: dict[str, Any] | None = None

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def pass_on(self, channel: Channel, *, is_final: bool = False) -> None:
        """Read what was reported and pass it on, nonsense aside. `is_final`: what waits goes out, however slow the agent."""
        for _ in range(REPORTS_PER_LOOK_MAX):
            try:
                report = json.loads(self._socket.recv(progress.PROGRESS_BYTES_MAX))
            except BlockingIOError:
                break
            except (ValueError, RecursionError):
                continue
            if not progress.is_report(report):
                continue
            if channel.is_full:
                self._checkpoint = report if progress.is_checkpoint(report) else self._checkpoint
            else:
                self._send_waiting(channel)
                channel.send("progress", **report)
        if is_final or not channel.is_full:
            self._send_waiting(channel)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _send_waiting(self, channel: Channel) -> None:
        if self._checkpoint is not None:
            channel.send("progress", **self._checkpoint)
            self._checkpoint = None
