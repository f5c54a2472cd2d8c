"""What a job may know about itself while it runs.

Owns: reading the TERRACE_ variables that the runner set for users' code. Does not own: setting them (head.py) or reporting back
(progress.py). Imported by users' code; standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class NotInALeaseError(RuntimeError):
    """This code does not run inside a Terrace lease; the message names the variable that is missing."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """The running attempt. `checkpoint_dir` outlives the attempt; the next one finds it again."""

    lease_id: str
    job_id: str
    attempt: int
    replicas: int
    gpus_per_replica_milli_gpu: int
    visible_devices: tuple[str, ...]
    checkpoint_dir: Path
    notice_file: Path

    @property
    def gpus_per_replica(self) -> float:
        """GPUs of one replica as Ray's `num_gpus` wants them: a whole number except for fractions of a device."""
        whole, rest = divmod(self.gpus_per_replica_milli_gpu, 1000)
        return whole if rest == 0 else self.gpus_per_replica_milli_gpu / 1000

    @property
    def is_stopping(self) -> bool:
        """True once the lease was told to end: save a checkpoint now, the kill follows after the grace period."""
        return self.notice_file.exists()


def context(environment: Mapping[str, str] = os.environ) -> JobContext:
    """Return what the running job may know about itself; NotInALeaseError outside a lease."""
    try:
        return JobContext(
            lease_id=environment["TERRACE_LEASE_ID"],
            job_id=environment["TERRACE_JOB_ID"],
            attempt=int(environment["TERRACE_ATTEMPT"]),
            replicas=int(environment["TERRACE_REPLICAS"]),
            gpus_per_replica_milli_gpu=int(environment["TERRACE_GPUS_PER_REPLICA_MILLI_GPU"]),
            visible_devices=tuple(device for device in environment["TERRACE_DEVICES"].split(",") if device),
            checkpoint_dir=Path(environment["TERRACE_CHECKPOINT_DIR"]),
            notice_file=Path(environment["TERRACE_NOTICE_FILE"]),
        )
    except KeyError as error:
        raise NotInALeaseError(f"not inside a Terrace lease: {error.args[0]} is not set") from error
