"""Settings of a node's agent: every limit with its unit and who should change it.

Owns no reading of the environment: the composition root fills these values. The defaults suit a node on a local network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from agents.device_selection import DeviceSettings
from agents.sandbox.spec import START_MARGIN_MS, Isolation, SandboxSettings

MIB = 1024 * 1024
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything that an agent needs to know before it starts. `token` is the node's key, `api_url` where the service answers."""

    api_url: str
    token: str
    state_dir: Path
    job_python: str  # interpreter of the job environment; operators
    devices: DeviceSettings  # its node_name is the name under which this node registered; operators
    agent_version: str = "0"
    isolation: Isolation | None = None  # None: namespaces where the machine has them; operators
    is_everybody_trusted: bool = False  # whether jobs may run as the agent's own user if need be; `terraced up` alone
    runtime_path: Path | None = None  # folder of the `terrace` package when the job environment lacks it; developers
    hidden_paths: tuple[Path, ...] = ()  # covered inside every lease, beside the state directory; operators with secrets on the node
    metrics_port: int | None = 0  # of /metrics on loopback; 0 takes a free one, None serves none; operators
    cpu_milli: int | None = None  # what leases may share; None: all of the machine; operators
    memory_bytes: int | None = None  # what leases may share; None: all of the machine; operators
    lease_disk_bytes_maximum: int = 256 * 1024 * MIB  # of a lease's files, its checkpoints included; operators, by the size of the disk
    # These three and a margin must end before the scheduler's start_deadline_ms, which counts from the grant: whoever's limit ends a start
    # says whose fault it was, and only the agent knows. `start_ms_maximum` is their sum; a test holds the defaults together.
    archive_seconds: float = 100.0  # until an archive is here, all tries together; operators of slow networks
    requirements_timeout_ms: int = 270_000  # until a job's packages are installed; operators of slow package indexes
    start_timeout_ms: int = 180_000  # from the launch to the entrypoint's process; operators with slow disks
    heartbeat_ms: int = 2_000  # nobody needs to
    long_poll_seconds: float = 20.0  # operators behind impatient proxies
    request_seconds: float = 10.0  # of any other request but an archive; operators of slow networks
    wheel_hosts: tuple[str, ...] = ()  # beside the index: hosts (or host:port) of wheels that jobs name by https address; operators
    archive_bytes_maximum: int = 256 * MIB  # nobody needs to: the service refuses larger ones
    backoff_minimum_ms: int = 100  # first wait after a failed request; it doubles from there
    backoff_maximum_ms: int = 5_000
    watch_ms: int = 50  # between two looks at a lease's processes; nobody needs to
    sample_ms: int = 5_000  # of telemetry; billing's contract in docs/metrics.md allows 60 s at most
    prove_every_ms: int = 250  # between two attempts to prove a lease's devices idle; nobody needs to
    suspect_after_ms: int = 60_000  # devices that stay busy that long after their lease's end are reported; operators
    retell_after_ms: int = 60_000  # a lease that is gone and still assigned is reported gone again; nobody needs to
    spool_retry_ms: int = 1_000  # between two attempts to write a report to a disk that refuses; nobody needs to
    spool_bytes_maximum: int = 256 * MIB  # of reports that the service has not taken; output beyond is dropped; operators
    stop_grace_ms: int = 5_000  # notice to running leases when the agent itself is stopped; operators
    stop_seconds_maximum: float = 25.0  # for all leases to end when the agent is stopped; what is left is killed; nobody needs to
    flush_seconds_maximum: float = 5.0  # for the last reports to leave when the agent is stopped; the rest waits in the spool
    checkpoints_kept_ms: int = 30 * DAY_MS  # since a job's last attempt here ended; operators of small disks
    prune_every_ms: int = DAY_MS // 4  # between two looks for checkpoints to delete; nobody needs to

    @property
    def sandbox(self) -> SandboxSettings:
        """How leases run on this machine."""
        return SandboxSettings(
            state_dir=self.state_dir,
            isolation=self.isolation,
            runtime_path=self.runtime_path,
            hidden_paths=self.hidden_paths,
            wheel_hosts=self.wheel_hosts,
            disk_bytes=self.lease_disk_bytes_maximum,
            requirements_timeout_ms=self.requirements_timeout_ms,
        )

    @property
    def start_ms_maximum(self) -> int:
        """Longest time from hearing of a lease to the word that it has started or failed."""
        return round(self.archive_seconds * 1_000) + self.requirements_timeout_ms + self.start_timeout_ms + START_MARGIN_MS

    @property
    def machine_cpu_milli(self) -> int:
        """Milli-CPU that leases share."""
        return self.cpu_milli or (psutil.cpu_count() or 1) * 1_000

    @property
    def machine_memory_bytes(self) -> int:
        """Memory in bytes that leases share."""
        return self.memory_bytes or psutil.virtual_memory().total
