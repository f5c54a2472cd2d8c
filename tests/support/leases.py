"""Leases for tests: specifications by keyword, archives from text, and a sandbox followed to its end."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agents.sandbox.spec import EventKind, LeaseSpec, SandboxEvent, SandboxSettings
from agents.sandbox.supervise import Sandbox
from tests.support.service import JOB_PYTHON, REPOSITORY
from tests.support.waiting import wait_until

END_SECONDS_MAXIMUM = 90
GIB = 1024**3

SPEC = LeaseSpec(
    lease_id="lease-1",
    job_id="job-1",
    attempt=1,
    node_name="node-1",
    device_uuids=("GPU-sim-3", "GPU-sim-5"),
    device_indices=(3, 5),
    is_simulated=True,
    cpu_milli=2000,
    memory_bytes=2 * GIB,
    replicas=2,
    gpus_per_replica_milli_gpu=1000,
    entrypoint=("true",),
    job_python=str(JOB_PYTHON),
    token="a-token-of-this-lease-" + "x" * 20,
    limit_ms=60_000,
    grace_ms=5_000,
)


def lease(**changes: Any) -> LeaseSpec:
    """Return a specification that differs from `SPEC` in `changes`."""
    return dataclasses.replace(SPEC, **changes)


def settings(state_dir: Path, **changes: Any) -> SandboxSettings:
    """Return settings for a state directory, with the client of this checkout."""
    state_dir.mkdir(mode=0o700, exist_ok=True)
    changes.setdefault("runtime_path", REPOSITORY / "client")
    return SandboxSettings(state_dir=state_dir, **changes)


def archive(path: Path, files: Mapping[str, str | bytes]) -> str:
    """Write a tar.gz with these files and return its path."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


class Followed:
    """A sandbox and all its events so far."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.events: list[SandboxEvent] = []

    def find(self, kind: EventKind) -> SandboxEvent | None:
        """Poll once; return the first event of a kind, None while there is none."""
        self.events += self.sandbox.poll()
        return next((event for event in self.events if event.kind is kind), None)

    def wait_for(self, kind: EventKind, *, seconds: float = END_SECONDS_MAXIMUM) -> dict[str, Any]:
        """Return the data of the first event of a kind."""
        event = wait_until(lambda: self.find(kind), seconds=seconds)
        assert event is not None
        return event.data

    def wait_for_line(self, text: str, *, seconds: float = END_SECONDS_MAXIMUM) -> str:
        """Return the first line of output that starts with `text`, without it."""
        return wait_until(lambda: self.find(EventKind.LOG) and line_after(self.events, text), seconds=seconds) or ""

    def to_the_end(self, *, seconds: float = END_SECONDS_MAXIMUM) -> dict[str, Any]:
        """Return how the entrypoint ended, once the whole tree is gone."""
        self.wait_for(EventKind.GONE, seconds=seconds)
        return self.wait_for(EventKind.EXITED)


def started(spec: LeaseSpec, of: SandboxSettings, on_start: Callable[[Sandbox], None] = lambda _: None) -> Followed:
    """Start a lease and follow it. `on_start` registers its end with the test."""
    sandbox = Sandbox(of)
    sandbox.start(spec)
    on_start(sandbox)
    return Followed(sandbox)


def line_after(events: list[SandboxEvent], text: str) -> str | None:
    """Return what follows `text` in the first complete line of output that starts with it."""
    output = "".join(event.data["text"] for event in events if event.kind is EventKind.LOG)
    return next(
        (line.removeprefix(text) for line in output.splitlines(keepends=True) if line.startswith(text) and line.endswith("\n")), None
    )


def facts(events: list[SandboxEvent]) -> dict[str, Any]:
    """Return what the probe job printed about the inside of its lease."""
    line = line_after(events, "FACTS ")
    assert line is not None, events
    answer: dict[str, Any] = json.loads(line)
    return answer
