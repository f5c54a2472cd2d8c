"""Handles on disk: how a later agent finds what an earlier one started.

Owns: the files `handles/<lease_id>.json` and the question what was left. Does not own: whether it still lives or how it ends
(supervise.py). A lease directory without a readable handle is a start that was cut off in the middle: it is found by its directory, and
its processes by their user and their mark.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from agents.sandbox import launch, procfs
from agents.sandbox.spec import Isolation, SandboxHandle, SandboxSettings


def write(handle: SandboxHandle, settings: SandboxSettings) -> None:
    """Write a handle, or a newer version of it; OSError when the disk refuses, and then the older one stands."""
    folder = settings.state_dir / "handles"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{handle.lease_id}.draft"
    draft.write_text(json.dumps(handle.to_json()))
    draft.replace(folder / f"{handle.lease_id}.json")


def forget(handle: SandboxHandle) -> None:
    """Delete the handle of a lease whose directory is deleted."""
    (Path(handle.lease_dir).parents[1] / "handles" / f"{handle.lease_id}.json").unlink(missing_ok=True)


def leftovers(settings: SandboxSettings) -> list[SandboxHandle]:
    """Return the handle of every lease that was started here and not discarded, in order of lease identifier."""
    found: dict[str, SandboxHandle] = {}
    for path in (settings.state_dir / "handles").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            handle = SandboxHandle.from_json(json.loads(path.read_text()))
            found[handle.lease_id] = handle
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(launch.leases_dir(settings)):
            if entry.name not in found and launch.LEASE_ID.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                found[entry.name] = _cut_off(entry)
    return [found[lease_id] for lease_id in sorted(found)]


def _cut_off(entry: os.DirEntry[str]) -> SandboxHandle:
    return SandboxHandle(
        lease_id=entry.name,
        pid=0,
        pid_started_at_ticks=0,
        isolation=Isolation.NONE,
        lease_dir=str(Path(entry.path).resolve()),
        boot_id=procfs.boot_id(),
        uid=entry.stat(follow_symlinks=False).st_uid,
    )
