"""Settings of the API process: every limit with its unit and who should change it.

A plain value. The composition root fills it from the environment; tests and benchmarks build it directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an uploaded archive may be. Operators raise these for tenants with large working directories."""

    compressed_bytes_maximum: int = 256 * MEBIBYTE
    unpacked_bytes_maximum: int = 1_024 * MEBIBYTE
    members_maximum: int = 20_000
    ratio_maximum: int = 200  # unpacked bytes per compressed byte
    ratio_floor_bytes: int = 16 * MEBIBYTE  # below this much, any ratio is harmless
    path_length_maximum: int = 1_024
    bytes_per_tenant_maximum: int = 20 * 1_024 * MEBIBYTE  # of all archives that one tenant keeps; operators
    archives_per_tenant_maximum: int = 10_000  # that one tenant keeps; operators
    uploads_maximum: int = 16  # received at once in one process, each with a thread
    uploads_per_tenant_maximum: int = 4  # of those, of one tenant
    upload_seconds_maximum: float = 600.0  # of receiving one


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days something is kept that nobody needs any more; 0 keeps it for ever. Jobs, leases and usage lines are always kept."""

    archive_days: int = 30  # since no job that names the archive was open; operators of small disks
    log_days: int = 90  # output, since its attempt ended; operators
    event_days: int = 400  # events of jobs and leases; those of an operator's changes are kept for ever; operators
    observation_days: int = 30  # what agents saw, since it was applied; nobody needs to


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Everything that the API needs to know before it starts."""

    state_dir: Path  # archives lie below it; operators
    currency: str = "USD"  # of estimates and price listings; operators
    is_embedded: bool = False  # told to clients; `terraced up` sets it
    service_version: str = "0.1.0"
    body_bytes_maximum: int = 8 * MEBIBYTE  # of any body but an archive; operators
    archive: ArchiveLimits = ArchiveLimits()
    retention: Retention = Retention()
    gangs_span_nodes: bool = False  # whether the scheduler places a gang over several nodes; the same there (SchedulerSettings.policy)
    open_jobs_maximum: int = 50_000  # of one tenant, not yet ended; operators
    estimates_per_minute: int = 120  # of one tenant; operators
    estimates_at_once: int = 2  # in one process, the rest wait; nobody needs to
    key_cache_seconds: float = 5.0  # how long another replica's revocation may go unseen; security-minded operators
    key_cache_maximum: int = 10_000  # keys remembered at once; nobody needs to
    catalog_seconds: float = 2.0  # how old flavors, tiers, projects and quotas may be when a job is accepted; nobody needs to
    long_poll_seconds_maximum: float = 30.0  # of an agent's wait for assignments; operators behind impatient proxies
    stream_seconds_maximum: float = 3_600.0  # an event stream ends then and the client resumes; operators
    streams_maximum: int = 1_000  # event streams open at once in one process; operators
    streams_per_tenant_maximum: int = 200  # of those, of one tenant (operators and finance together count as one); operators
    stream_send_seconds_maximum: float = 30.0  # a stream whose reader does not read for so long ends; nobody needs to
    heartbeat_seconds: float = 15.0  # of silence before a stream sends a comment; operators behind impatient proxies
    log_bytes_per_attempt_maximum: int = 64 * MEBIBYTE  # output beyond is dropped; operators

    @property
    def archives_dir(self) -> Path:
        """Where archives lie: `TENANT_ID/SHA256` below this."""
        return self.state_dir / "archives"
