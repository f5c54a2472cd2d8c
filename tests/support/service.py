"""The whole service as a person starts it: `terraced up` in a process of its own, driven through the SDK.

The caller owns the directory. Stopping and killing go by the process that was started here, never by name.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
JOB_PYTHON = REPOSITORY / ".venv-job/bin/python"
READY_SECONDS_MAXIMUM = 60
STOP_SECONDS_MAXIMUM = 75  # a stop may take 65: terraced/up.py


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def are_gone(processes: Sequence[psutil.Process]) -> bool:
    """Tell whether every one of these processes has ended."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@dataclass
class Service:
    """`terraced up` on a state directory and a database; may be started again after a stop or a kill."""

    state_dir: Path
    database_url: str | None = None
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    output: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def operator_key(self) -> str:
        """The first operator's key."""
        return (self.state_dir / "operator.key").read_text().strip()

    def start(self) -> None:
        """Start and wait until the service says that it is up; AssertionError with its output otherwise."""
        arguments = [
            str(BIN / "terraced"),
            "up",
            f"--state-dir={self.state_dir}",
            f"--port={self.port}",
            f"--job-python={JOB_PYTHON}",
            "--agent-metrics-port=0",
            "--scheduler-metrics-port=0",
            *([f"--database-url={self.database_url}"] if self.database_url else []),
            *self.options,
        ]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        ready = threading.Event()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        is_up = ready.wait(READY_SECONDS_MAXIMUM) and self.process.poll() is None
        assert is_up, "the service did not start:\n" + "\n".join(self.output[-60:])

    def _read(self, ready: threading.Event) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.decode(errors="replace").rstrip())
            if "Terrace is up" in self.output[-1]:
                ready.set()
        ready.set()

    def descendants(self) -> list[psutil.Process]:
        """Return every process below the service now."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, name: str) -> psutil.Process:
        """Return the supervised process `terraced NAME`."""
        assert self.process is not None
        for process in psutil.Process(self.process.pid).children():
            if process.cmdline()[-1] == name:
                return process
        raise AssertionError(f"no child named {name}")

    def kill(self) -> None:
        """kill -9 the supervisor."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop as Ctrl-C does; return the exit status."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_SECONDS_MAXIMUM)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
