"""The line between the runner and the agent: JSON lines over an inherited socket.

Owns: framing, and the bounded buffer of what the agent has not read yet. Does not own: what the lines mean (runner.py; the agent's side is
agents/sandbox/supervise.py). Never blocks: when the agent is slow, `is_full` says so and the caller reads no more logs for the time being.
"""

from __future__ import annotations

import json
import select
import socket
from typing import Any

PENDING_BYTES_MAX = 256 * 1024
LINE_BYTES_MAX = 64 * 1024


class Channel:
    """The runner's end. `is_open` turns False when the agent is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self.is_open = True

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    @property
    def is_full(self) -> bool:
        """True while the agent has so much to read that nothing should be added which can wait."""
        return len(self._outgoing) >= PENDING_BYTES_MAX

    def send(self, kind: str, **data: Any) -> None:
        """Queue one line and write as much as the socket takes."""
        self._outgoing += json.dumps({"kind": kind, **data}).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Write what the socket takes; True when nothing is left."""
        while self._outgoing and self.is_open:
            try:
                sent = self._socket.send(self._outgoing[:LINE_BYTES_MAX])
            except BlockingIOError:
                return False
            except OSError:
                self.is_open = False
                break
            del self._outgoing[:sent]
        return not self._outgoing

    def drain(self, seconds: float) -> None:
        """Write everything, waiting up to `seconds` in each step for a slow agent."""
        while self.is_open and not self.flush():
            if not select.select([], [self._socket], [], seconds)[1]:
                return

    def receive(self) -> list[dict[str, Any]]:
        """Return the complete lines that have arrived. The agent's end closed, or a line beyond all measure, closes the channel."""
        try:
            while block := self._socket.recv(LINE_BYTES_MAX):
                self._incoming += block
                if len(self._incoming) > PENDING_BYTES_MAX:
                    break
            self.is_open = False
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        *lines, rest = bytes(self._incoming).split(b"\n")
        self._incoming = bytearray(rest)
        return [json.loads(line) for line in lines]
