"""The lease's Ray head: its command, its environment, its ports, and the entrypoint's command line.

Owns: every option given to Ray and why, and where in the lease things lie. Does not own: starting or watching the process (runner.py). All
functions are pure but `free_ports`. Ray's own cleverness is switched off where it would look beyond the lease.
"""

from __future__ import annotations

import math
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_MARGIN_SECONDS = 5
MILLI = 1000
# What users' own variables may not change: who the lease is, what it sees, how its cluster is locked.
RESERVED_PREFIXES = ("TERRACE_", "RAY_AUTH_")
RESERVED = ("CUDA_VISIBLE_DEVICES",)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts of the head listen."""

    gcs: int = 6379
    dashboard: int = 8265
    agent_http: int = 52365
    agent_grpc: int = 52366
    runtime_env_agent: int = 52367
    metrics: int = 52368
    client_server: int = 10001


def free_ports() -> Ports:
    """Return ports that nobody uses now, for a lease without a network of its own. Held together, so that they differ."""
    probes = [socket.socket() for _ in Ports.__dataclass_fields__]
    try:
        for probe in probes:
            probe.bind(("", 0))
        return Ports(*(probe.getsockname()[1] for probe in probes))
    finally:
        for probe in probes:
            probe.close()


def start_command(lease: Mapping[str, Any], ports: Ports) -> list[str]:
    """Return the command of the head. `--block` keeps it our child, so its end is seen; -P keeps the working directory's modules out."""
    return [
        *(lease["python"], "-P", "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        f"--num-cpus={max(1, lease['cpu_milli'] // MILLI)}",
        f"--num-gpus={len(lease['visible_devices'])}",
        f"--memory={lease['memory_bytes']}",
        f"--object-store-memory={lease['object_store_bytes']}",
        f"--temp-dir={lease['temp_dir']}/ray",
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        f"--port={ports.gcs}",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.agent_http}",
        f"--dashboard-agent-grpc-port={ports.agent_grpc}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--metrics-export-port={ports.metrics}",
        f"--ray-client-server-port={ports.client_server}",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]


def environment(lease: Mapping[str, Any], base: Mapping[str, str], run_dir: Path) -> dict[str, str]:
    """Return the variables of the head, which every worker and the entrypoint inherit. Users' variables go below ours."""
    users = {
        name: value
        for name, value in lease["env"].items()
        if not name.startswith(RESERVED_PREFIXES) and name not in {*RESERVED, "PYTHONPATH", "PATH"}
    }
    users |= {
        name: f"{base[name]}:{lease['env'][name]}" if name in base else lease["env"][name]
        for name in ("PYTHONPATH", "PATH")
        if name in lease["env"]
    }
    devices = ",".join(lease["visible_devices"])
    return {
        **base,
        **users,
        "CUDA_VISIBLE_DEVICES": devices,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": lease["token"],
        "RAY_USAGE_STATS_ENABLED": "0",
        # The runner bounds the grace period; Ray's own kill after 3 s would cut it short.
        "RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(lease["grace_ms"] / 1000) + STOP_MARGIN_SECONDS),
        # It would kill this lease's workers when other leases fill the machine; the runner watches this lease's own limit.
        "RAY_memory_monitor_refresh_ms": "0",
        "TERRACE_LEASE_ID": lease["lease_id"],
        "TERRACE_JOB_ID": lease["job_id"],
        "TERRACE_ATTEMPT": str(lease["attempt"]),
        "TERRACE_REPLICAS": str(lease["replicas"]),
        "TERRACE_GPUS_PER_REPLICA": f"{lease['gpus_per_replica_milli_gpu'] / MILLI:g}",
        "TERRACE_GPUS_PER_REPLICA_MILLI_GPU": str(lease["gpus_per_replica_milli_gpu"]),
        "TERRACE_DEVICES": devices,
        "TERRACE_CHECKPOINT_DIR": lease["checkpoint_dir"],
        "TERRACE_NOTICE_FILE": str(notice_file(run_dir)),
        "TERRACE_PROGRESS_SOCKET": str(progress_socket(run_dir)),
    }


def entrypoint_command(lease: Mapping[str, Any], run_dir: Path, output: Path) -> str:
    """Return the shell line that Ray's job API runs once on the head.

    Ray leaves CUDA_VISIBLE_DEVICES unset for an entrypoint that asks for no GPUs, and ours must not ask: its replicas need them. So
    the line sets it. It also says its pid first, which is how the runner learns that users' code exists, and from when.
    """
    devices = shlex.quote(",".join(lease["visible_devices"]))
    return (
        f"echo $$ > {shlex.quote(str(pid_file(run_dir)))}; export CUDA_VISIBLE_DEVICES={devices}; "
        f"exec >> {shlex.quote(str(output))} 2>&1; exec {shlex.join(lease['entrypoint'])}"
    )


def folders(lease: Mapping[str, Any]) -> list[str]:
    """Return every folder that users' code may write to. With namespaces the lease's /tmp is one of its own folders."""
    own = [f"{lease['lease_dir']}/{name}" for name in ("work", "tmp", "home", "logs")]
    return [*own, lease["checkpoint_dir"], *([] if lease["isolation"] == "namespaces" else [lease["temp_dir"]])]


def pid_file(run_dir: Path) -> Path:
    """Return where the entrypoint's shell line writes its pid."""
    return run_dir / "entrypoint.pid"


def notice_file(run_dir: Path) -> Path:
    """Return the file whose existence tells users' code that the lease is about to end."""
    return run_dir / "notice.json"


def progress_socket(run_dir: Path) -> Path:
    """Return the socket that users' code reports progress to."""
    return run_dir / "progress.sock"
