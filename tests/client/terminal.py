"""The command in a process of its own, on a real terminal or between pipes."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import wait_until

PROGRAM = [sys.executable, "-c", "from terrace.cli import main; main()"]
START_SECONDS_MAXIMUM = 30
END_SECONDS_MAXIMUM = 30
COLUMNS = 120


def environment(**changes: str) -> dict[str, str]:
    """Return an environment for the command: nobody logged in but as said here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")}
    return {**kept, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PYTHONUNBUFFERED": "1", "TZ": "UTC", **changes}


@dataclass
class Terminal:
    """A command whose input and outputs are one terminal."""

    process: subprocess.Popen[bytes]
    master: int
    _shown: bytearray = field(default_factory=bytearray)

    @property
    def shown(self) -> str:
        """Everything that the terminal has shown so far."""
        try:
            while block := os.read(self.master, 65_536):
                self._shown += block
        except (BlockingIOError, OSError):  # nothing now, or nobody any more
            pass
        return self._shown.decode("utf-8", "replace")

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown `text`."""
        wait_until(lambda: text in self.shown, seconds=START_SECONDS_MAXIMUM)

    def type(self, text: str) -> None:
        """Type on the keyboard. Ctrl-C is `\\x03`."""
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait for the command's end and return its exit code."""
        wait_until(self._has_ended, seconds=END_SECONDS_MAXIMUM)
        return self.process.wait()

    def _has_ended(self) -> bool:
        return self.shown is not None and self.process.poll() is not None  # reading meanwhile: a full terminal stops its writer

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)


@contextmanager
def on_terminal(*arguments: str, cwd: Path, env: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a command on a terminal of its own; killed at the end."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=dict(env), start_new_session=True,
        preexec_fn=lambda: _own_terminal(slave),
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _own_terminal(slave: int) -> None:
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
