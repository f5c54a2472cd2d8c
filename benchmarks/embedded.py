"""The whole service for a measurement: `terraced up` on a temporary state directory, started and stopped as a person does.

Owns the process and its readiness. Does not own what is measured. Used by benchmarks.memory and benchmarks.first_line.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from terraced import up

START_SECONDS_MAXIMUM = 90
STOP_SECONDS_MAXIMUM = sum(up.STOP_SECONDS.values()) + 10


@dataclass(frozen=True)
class Embedded:
    """A service that is up."""

    pid: int
    url: str
    operator_key: str


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def embedded(job_python: Path) -> Iterator[Embedded]:
    """Run the service while the block runs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="terrace-bench-") as folder:
        state_dir = Path(folder) / "state"
        options = ["--agent-metrics-port=0", "--scheduler-metrics-port=0", f"--job-python={job_python}", f"--port={port}"]
        arguments = [str(Path(sys.executable).parent / "terraced"), "up", f"--state-dir={state_dir}", *options]
        service = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            _wait_until_up(service)
            yield Embedded(service.pid, f"http://127.0.0.1:{port}", (state_dir / "operator.key").read_text().strip())
        finally:
            service.send_signal(signal.SIGINT)
            try:
                service.wait(STOP_SECONDS_MAXIMUM)
            finally:
                service.kill()


def _wait_until_up(service: subprocess.Popen[bytes]) -> None:
    is_up = threading.Event()

    def read() -> None:
        for line in service.stdout or ():
            if b"Terrace is up" in line:
                is_up.set()

    threading.Thread(target=read, daemon=True).start()
    if not is_up.wait(START_SECONDS_MAXIMUM):
        raise SystemExit("the service did not start")
