"""Memory of the idle service: proportional set size of each process of `terraced up`, with no job.

The proportional set size counts shared pages once between the processes that share them, so the sum is what the machine really gives.
Prints one JSON row per process and their sum.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

START_SECONDS_MAXIMUM = 90
SETTLE_SECONDS = 5
MEBIBYTE = 1 << 20


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(state_dir: Path, job_python: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the service and wait until it says that it is up."""
    options = ["--agent-metrics-port=0", "--scheduler-metrics-port=0", f"--job-python={job_python}", f"--port={port}"]
    arguments = [str(Path(sys.executable).parent / "terraced"), "up", f"--state-dir={state_dir}", *options]
    service = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    is_up = threading.Event()

    def read() -> None:
        for line in service.stdout or ():
            if b"Terrace is up" in line:
                is_up.set()

    threading.Thread(target=read, daemon=True).start()
    if not is_up.wait(START_SECONDS_MAXIMUM):
        service.kill()
        raise SystemExit("the service did not start")
    return service


def stop(service: subprocess.Popen[bytes]) -> None:
    """Stop the service as Ctrl-C does."""
    service.send_signal(signal.SIGINT)
    service.wait(60)


def main() -> None:
    """Measure once, after the service has been idle for `SETTLE_SECONDS`."""
    parser = argparse.ArgumentParser(description="Measure the memory of the idle service.")
    parser.add_argument("--job-python", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="terrace-memory-") as folder:
        service = start(Path(folder) / "state", options.job_python, free_port())
        try:
            threading.Event().wait(SETTLE_SECONDS)
            parent = psutil.Process(service.pid)
            sizes = {"supervisor": parent.memory_full_info().pss}
            for child in parent.children():
                sizes[child.cmdline()[-1]] = child.memory_full_info().pss
        finally:
            stop(service)
    for name, size in sizes.items():
        print(json.dumps({"bench": "memory", "case": f"{name}, idle", "figure": round(size / MEBIBYTE, 1), "unit": "MiB PSS"}))
    print(
        json.dumps(
            {"bench": "memory", "case": "whole service, idle", "figure": round(sum(sizes.values()) / MEBIBYTE, 1), "unit": "MiB PSS"}
        )
    )


if __name__ == "__main__":
    main()
