"""The checkpoint directories of this node: one per job, for every attempt that runs here.

Owns: where they are and when one is deleted: long after the job's last attempt here ended. Does not own: whose they are meanwhile
(sandbox/ownership.py, which also notes the time of the end; what users' code does to the times inside changes nothing).
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path

import structlog

from agents.sandbox import ownership
from agents.settings import AgentSettings

log = structlog.get_logger()


def directory(settings: AgentSettings, job_id: str) -> Path:
    """Return the directory that every attempt of a job on this node gets."""
    return settings.state_dir / "checkpoints" / job_id


def prune(settings: AgentSettings, *, jobs: Container[str], now_ms: int) -> list[str]:
    """Delete what was last used longer than `checkpoints_kept_ms` ago and belongs to none of `jobs`; return the jobs whose it was."""
    folder = settings.state_dir / "checkpoints"
    if not folder.is_dir():
        return []
    deleted = []
    for entry in os.scandir(folder):
        age_ms = now_ms - entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
        if entry.name in jobs or age_ms <= settings.checkpoints_kept_ms or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            ownership.remove_tree(Path(entry.path))
            deleted.append(entry.name)
        except OSError as error:
            log.warning("an old checkpoint stays", job=entry.name, error=str(error))
    return deleted
