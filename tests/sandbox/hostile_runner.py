"""A runner that users' code has taken over: says hello like the real one, then does what the entrypoint's first argument says.

Copied over terrace/runtime/runner.py of a test's job environment. The program gets `say` (an object, as a line), `raw` (bytes) and `lease`.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path


def main() -> None:
    """Say hello, wait for the go, run the program."""
    lease = json.loads(Path(sys.argv[1]).read_text())
    connection = socket.socket(fileno=int(sys.argv[2]))

    def say(kind: str, **data: object) -> None:
        connection.sendall(json.dumps({"kind": kind, **data}).encode() + b"\n")

    say("hello")
    connection.recv(4096)
    program = lease["entrypoint"][0]
    exec(program, {"say": say, "raw": connection.sendall, "lease": lease})  # noqa: S102  # the test's own program
