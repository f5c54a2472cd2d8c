"""A job that looks around inside its lease and prints what it sees as one line of JSON.

Runs in the job environment; its arguments are paths to try.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import ray

from terrace import runtime


def dashboard() -> str:
    """Return the address of the dashboard, found as any code in the lease can find it."""
    address = Path(os.environ["TERRACE_NOTICE_FILE"]).parent.parent / "ray/session_latest/../dashboard"
    return address.read_text() if address.exists() else os.environ.get("PROBE_DASHBOARD", "127.0.0.1:8265")


def http_status(token: str | None, path: str = "/api/jobs/", body: dict[str, Any] | None = None) -> int:
    """Return the status of a request with a token, or without one."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://{dashboard()}{path}", data=data, headers=headers), timeout=20
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def attempt(action: Any) -> str:
    """Return "done" or the name of the error."""
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"


def listening() -> list[str]:
    """Return the local addresses of all listening TCP sockets of this network."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    return sorted({row.split()[1].split(":")[0] for row in rows if row.split()[3] == "0A"})


@ray.remote
def visible(_number: int) -> str | None:
    """Return what a task sees, long enough for two to run at once."""
    ray.get(gate.wait.remote()) if (gate := ray.get_actor("gate")) else None
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@ray.remote(num_cpus=0)
class Gate:
    """Opens when two tasks wait."""

    def __init__(self) -> None:
        import asyncio

        self.waiting, self.event = 0, asyncio.Event()

    async def wait(self) -> None:
        """Return when two are waiting."""
        self.waiting += 1
        if self.waiting == 2:
            self.event.set()
        await self.event.wait()


@ray.remote(num_cpus=0)
def where() -> tuple[str, list[str]]:
    """Return a worker's working directory and files."""
    return os.getcwd(), sorted(os.listdir("."))


def main() -> None:
    """Look around and print."""
    context = runtime.context()
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    ray.init(log_to_driver=False)
    gate = Gate.options(name="gate").remote()
    devices = ray.get([visible.options(num_gpus=1, num_cpus=0).remote(number) for number in range(2)])
    del gate
    orphan = subprocess.Popen(["setsid", "sleep", "1000"], env={})
    facts = {
        "uid": os.getuid(),
        "capabilities": sorted({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}),
        "no_new_privileges": status["NoNewPrivs"],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "listening": listening(),
        "processes": sum(name.isdigit() for name in os.listdir("/proc")),
        "first_process": Path("/proc/1/cmdline").read_text().split("\0")[1:3],
        "first_process_files": attempt(lambda: os.listdir("/proc/1/fd")),
        "new_namespace": subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode,
        "paths": {
            path: attempt(lambda path=path: os.listdir(path) if os.path.isdir(path) else Path(path).read_text()) for path in sys.argv[1:]
        },
        "listings": {path: sorted(os.listdir(path)) for path in sys.argv[1:] if os.path.isdir(path)},
        "write_job_environment": attempt(lambda: (Path(sys.prefix) / "planted").write_text("x")),
        "write_checkpoint": attempt(lambda: (context.checkpoint_dir / "planted").write_text("x")),
        "environment": sorted(os.environ),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "task_devices": sorted(devices),
        "gpus": ray.cluster_resources().get("GPU", 0),
        "where": [os.getcwd(), sorted(os.listdir("."))],
        "worker_where": ray.get(where.remote()),
        "http": {
            "right": http_status(os.environ["RAY_AUTH_TOKEN"]),
            "none": http_status(None),
            "of another lease": http_status("b-token-of-another-lease-" + "y" * 20),
        },
        "duplicate_submission": http_status(os.environ["RAY_AUTH_TOKEN"], body={"entrypoint": "true", "submission_id": context.lease_id}),
        "context": {"job_id": context.job_id, "attempt": context.attempt, "replicas": context.replicas, "gpus": context.gpus_per_replica},
        "is_progress_taken": runtime.report_progress(step=3, total=7, loss=0.25),
        "orphan": orphan.pid,
    }
    print("FACTS " + json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
