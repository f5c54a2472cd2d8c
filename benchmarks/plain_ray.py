"""The peer of `benchmarks.first_line`: plain Ray doing a fresh head and one submitted job, inside a network namespace.

Run with the job environment's interpreter. Prints one JSON object: seconds from just before `ray start` to the first line of user code, and
the parts of it. Ray listens on all interfaces unless it is alone in a network namespace, so this program refuses to run outside one.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
START_SECONDS_MAXIMUM = 60.0
PROGRAM = "import time; print('first line at', time.time(), flush=True)"


def bring_loopback_up() -> None:
    """Set `lo` up; refuse when any other interface exists."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        sys.exit("plain_ray: run me in a network namespace of my own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def main() -> None:
    """Measure once."""
    if os.getpid() != 1:
        sys.exit("plain_ray: run me as the first process of a PID namespace of my own")
    bring_loopback_up()
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        began = time.time()
        ray = str(Path(sys.executable).parent / "ray")
        subprocess.Popen(  # ends with this process, which is the first of its PID namespace
            [ray, "start", "--head", "--block", "--num-gpus=1", "--num-cpus=1", f"--temp-dir={folder}", "--object-store-memory=100000000"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready, first_line = submit_one(began)
    print(json.dumps({"seconds": first_line - began, "ready_seconds": ready - began}))


def submit_one(began: float) -> tuple[float, float]:
    """Wait for the dashboard, submit a job, return (when the dashboard answered, when user code printed its first line)."""
    from ray.job_submission import JobSubmissionClient  # imported while the head starts, as a person's script would have done before

    while True:
        try:
            client = JobSubmissionClient("http://127.0.0.1:8265")
            break
        except (ConnectionError, RuntimeError):
            if time.time() - began > START_SECONDS_MAXIMUM:
                raise
            time.sleep(0.02)
    ready = time.time()
    job = client.submit_job(entrypoint=f'{sys.executable} -c "{PROGRAM}"')
    while True:
        for line in client.get_job_logs(job).splitlines():
            if line.startswith("first line at "):
                return ready, float(line.rsplit(" ", 1)[1])
        if time.time() - began > START_SECONDS_MAXIMUM:
            raise TimeoutError(client.get_job_logs(job))
        time.sleep(0.02)


if __name__ == "__main__":
    main()
