"""What a sandbox is told, what it answers, and what it is set to: plain values that survive a trip through JSON.

Owns: the lease's specification, the handle by which a later process finds the same process tree again, the events, the
settings and the errors. Does not own: starting anything (launch.py) or the wire models of the service, from which the
node daemon builds a `LeaseSpec`. The runner inside the lease reads the same names from `runner.json`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
START_MARGIN_MS = 15_000  # beyond its own limits, for a start to say that it failed


class Isolation(StrEnum):
    """How a lease is kept apart from the others on its machine."""

    NAMESPACES = "namespaces"  # own user, PID, mount, network and IPC namespaces
    NONE = "none"  # own session, token on every port, all descendants killed; ports are open to the machine


class FailureClass(StrEnum):
    """Why an entrypoint did not succeed, as far as its machine can tell. Same words as the service's failure classes."""

    USER_CODE = "user_code"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    ENVIRONMENT = "environment"
    PLATFORM = "platform"


class EventKind(StrEnum):
    """What a sandbox can report."""

    HELLO = "hello"  # the runner is there; handled by the supervisor, not passed on
    WARNING = "warning"  # data: message
    READY = "ready"  # Ray answers; data: ray_version, seconds_ms
    STARTED = "started"  # the entrypoint's process exists; data: pid (inside the lease)
    LOG = "log"  # data: offset (bytes), text
    PROGRESS = "progress"  # data: what the job reported
    EXITED = "exited"  # data: exit_code or None, failure_class or None, message, was_stopped (on request, before it ended by itself)
    GONE = "gone"  # the process tree is proven gone


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSpec:
    """One lease's part on this machine. `device_uuids` and `device_indices` name the same devices in the same order.

    `entrypoint` is an argument list, run without a shell of the user's. `archive_path` is a tar.gz whose hash was verified.
    `start_timeout_ms` bounds everything before the entrypoint's process exists; `limit_ms` runs from there.
    `hidden_device_paths` are the device nodes of this machine that are not the lease's; they are covered (with namespaces only).
    """

    lease_id: str
    job_id: str
    attempt: int
    node_name: str
    device_uuids: tuple[str, ...]
    device_indices: tuple[int, ...]
    is_simulated: bool
    cpu_milli: int
    memory_bytes: int
    replicas: int
    gpus_per_replica_milli_gpu: int
    entrypoint: tuple[str, ...]
    job_python: str
    token: str
    limit_ms: int
    grace_ms: int
    role: str = "head"
    env: dict[str, str] = field(default_factory=dict)
    archive_path: str | None = None
    requirements_path: str | None = None
    checkpoint_dir: str | None = None
    hidden_device_paths: tuple[str, ...] = ()
    start_timeout_ms: int = 180_000

    def visible_devices(self) -> tuple[str, ...]:
        """Return what CUDA_VISIBLE_DEVICES names: UUIDs of real devices (they survive renumbering), indices of simulated ones."""
        return tuple(str(index) for index in self.device_indices) if self.is_simulated else self.device_uuids


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """How this machine runs leases.

    `isolation` None probes the machine once. `runtime_path` is a folder that holds the `terrace` package when the job
    environment does not have it installed (development). `hidden_paths` are covered inside every lease beside `state_dir`.
    Run by root, each lease gets its own user id from `lease_uid_base` on; nobody else may use that range, and checkpoints of jobs
    that wait for their next attempt belong to it. `tasks_maximum` bounds the processes and threads of a lease (with namespaces only).
    `disk_bytes` is what a lease's folders may take, its checkpoint directory included.
    `wheel_hosts` are where a job's wheels may come from by address; the package index is always allowed.
    """

    state_dir: Path
    isolation: Isolation | None = None
    runtime_path: Path | None = None
    hidden_paths: tuple[Path, ...] = ()
    lease_uid_base: int = 60_600  # below systemd's dynamic users, above people's
    lease_uid_count: int = 512
    tasks_maximum: int = 16_384
    object_store_bytes: int = 160 * MIB
    disk_bytes: int = 256 * 1024 * MIB
    requirements_timeout_ms: int = 270_000
    wheel_hosts: tuple[str, ...] = ()

    @property
    def lease_uids(self) -> range:
        """The user ids of leases, when run by root."""
        return range(self.lease_uid_base, self.lease_uid_base + self.lease_uid_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxHandle:
    """Enough to find, kill and prove gone a lease's process tree from another process. Times are kernel clock ticks since boot.

    `pid` is the tree's parent on this machine, 0 when the agent died before it wrote that down; `init_pid` the first process of the lease's
    PID namespace, None until known.
    """

    lease_id: str
    pid: int
    pid_started_at_ticks: int
    isolation: Isolation
    lease_dir: str
    boot_id: str
    uid: int
    init_pid: int | None = None
    init_started_at_ticks: int | None = None
    temp_dir: str | None = None
    checkpoint_dir: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the handle as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SandboxHandle:
        """Return the handle that `to_json` described; KeyError, TypeError or ValueError when it did not."""
        return cls(**{**values, "isolation": Isolation(values["isolation"])})


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """Something seen, stamped by the agent's clock when it arrived."""

    kind: EventKind
    at_ms: int
    data: dict[str, Any]


class SandboxError(Exception):
    """A lease cannot be started on this machine; the message says why and what to change."""

    failure_class = FailureClass.PLATFORM


class CheckpointError(SandboxError):
    """What earlier attempts left in the checkpoint directory cannot be given to the next one."""

    failure_class = FailureClass.ENVIRONMENT


class LeaseAlreadyStartedError(SandboxError):
    """The lease's directory exists: it was started before on this machine, and a lease runs once."""
