"""A job that looks around inside its lease, tries what it should not be able to do, and prints what came of it as one line of JSON.

Runs in the job environment. Its argument is JSON: `paths` to look at, `plants` where it tries to leave a file, `other_token`, which is
another lease's, how long its `orphan_sleeps`, and whether it `is_staying` until it is killed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import ray

from terrace import runtime
from terrace.runtime.jobs_api import JobsApi

ORDER = {"paths": [], "plants": [], "other_token": "", "orphan_sleeps": "1000", "is_staying": False, **json.loads(sys.argv[1])}


def http_status(dashboard: str, token: str | None, path: str = "/api/jobs/", body: dict[str, Any] | None = None) -> int:
    """Return the status of a request with a token, or without one."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{dashboard}{path}", data=data, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def submissions(dashboard: str, token: str) -> list[str]:
    """Return the submission ids that Ray knows."""
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(f"http://{dashboard}/api/jobs/", headers=headers), timeout=20) as answer:
        return [job["submission_id"] for job in json.load(answer) if job["submission_id"]]


def attempt(action: Any) -> str:
    """Return "done" or the name of the error."""
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"


def look(path: str) -> str:
    """Try to read a file or list a folder."""
    return attempt(lambda: os.listdir(path) if os.path.isdir(path) else Path(path).read_text())


def listening() -> list[str]:
    """Return the local addresses of all listening TCP sockets of this network."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    return sorted({row.split()[1].split(":")[0] for row in rows if row.split()[3] == "0A"})


def commands() -> list[str]:
    """Return the command of every process that can be seen."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.append((Path("/proc") / name / "cmdline").read_text().replace("\0", " ").strip())
            except OSError:
                continue
    return found


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


def surroundings() -> dict[str, Any]:
    """Return what the kernel shows."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "uid": os.getuid(),
        "capabilities": sorted({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}),
        "no_new_privileges": status["NoNewPrivs"],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "listening": listening(),
        "commands": commands(),
        "first_process": Path("/proc/1/cmdline").read_text(),
        "limits": [resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_CORE)],
        "environment": sorted(os.environ),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def trespasses() -> dict[str, Any]:
    """Try what must fail, or must have no effect outside."""
    numbers = (signal.SIGTERM, signal.SIGKILL) if "terrace.runtime" in Path("/proc/1/cmdline").read_text() else ()
    return {
        "kill_of_the_runner": [attempt(lambda number=number: os.kill(1, number)) for number in numbers],
        "first_process_files": attempt(lambda: os.listdir("/proc/1/fd")),
        "new_namespace": subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode,
        "paths": {path: look(path) for path in ORDER["paths"]},
        "listings": {path: sorted(os.listdir(path)) for path in [*ORDER["paths"], "/run"] if os.path.isdir(path)},
        "plants": {path: attempt(lambda path=path: Path(path).write_text("x")) for path in ORDER["plants"]},
        "write_job_environment": attempt(lambda: (Path(sys.prefix) / "planted").write_text("x")),
    }


def main() -> None:
    """Look around and print."""
    context = runtime.context()
    dashboard = ray.init(log_to_driver=False).dashboard_url
    token = os.environ["RAY_AUTH_TOKEN"]
    gate = Gate.options(name="gate").remote()
    devices = ray.get([visible.options(num_gpus=1, num_cpus=0).remote(number) for number in range(2)])
    del gate
    subprocess.Popen(["sleep", ORDER["orphan_sleeps"]], env={}, start_new_session=True)
    duplicate = http_status(dashboard, token, body={"entrypoint": "true", "submission_id": context.lease_id})
    JobsApi(int(dashboard.rsplit(":", 1)[1]), token).submit_once(context.lease_id, "a second entrypoint")
    facts = {
        **surroundings(),
        **trespasses(),
        "write_checkpoint": attempt(lambda: (context.checkpoint_dir / "planted").write_text("x")),
        "task_devices": sorted(devices),
        "gpus": ray.cluster_resources().get("GPU", 0),
        "nodes": len(ray.nodes()),
        "where": [os.getcwd(), sorted(os.listdir("."))],
        "worker_where": ray.get(where.remote()),
        "http": {
            "right": http_status(dashboard, token),
            "none": http_status(dashboard, None),
            "of another lease": http_status(dashboard, ORDER["other_token"] or "b" * 40),
        },
        "duplicate_submission": duplicate,
        "submissions": submissions(dashboard, token),
        "context": {"job_id": context.job_id, "attempt": context.attempt, "replicas": context.replicas, "gpus": context.gpus_per_replica},
        "is_progress_taken": runtime.report_progress(step=3, total=7, loss=0.25),
    }
    print("FACTS " + json.dumps(facts), flush=True)
    if ORDER["is_staying"]:
        threading.Event().wait()


if __name__ == "__main__":
    main()
