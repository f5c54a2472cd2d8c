"""An agent in a process of its own, possibly of another user and in a network of its own, with one lease."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.sandbox.spec import EventKind, LeaseSpec, SandboxEvent, SandboxHandle
from tests.support import leases
from tests.support.service import JOB_PYTHON, REPOSITORY

PROGRAMS = REPOSITORY / "tests/sandbox"
ORDINARY_UID = 12_345


@dataclass
class OtherAgent:
    """The process, its lease's handle, and the events that it has printed so far."""

    process: subprocess.Popen[str]
    handle: SandboxHandle
    events: list[SandboxEvent]

    def read_until(self, kind: EventKind) -> dict[str, Any]:
        """Return the data of the first event of a kind; AssertionError when the agent ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            self.events.append(SandboxEvent(EventKind(message["kind"]), 0, message["data"]))
            if self.events[-1].kind is kind:
                return self.events[-1].data
        raise AssertionError(f"the agent ended before {kind}: {self.events}")

    def read_line(self, text: str) -> str:
        """Return the first line of the lease's output that starts with `text`, without it."""
        while (line := leases.line_after(self.events, text)) is None:
            self.read_until(EventKind.LOG)
        return line


@contextmanager
def other_agent(
    spec: LeaseSpec, *, isolation: str | None = None, is_ordinary_user: bool = False, has_own_network: bool = False
) -> Iterator[OtherAgent]:
    """Start an agent with a lease; kill it afterwards, which must end the lease too."""
    uid = ORDINARY_UID if is_ordinary_user and os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory(prefix="terrace-", ignore_cleanup_errors=True) as folder:
        order = _order(Path(folder), spec, isolation, uid)
        command = [sys.executable, str(PROGRAMS / "agent_program.py"), str(order)]
        process = subprocess.Popen(
            _elsewhere(command, folder, uid, has_own_network) if is_ordinary_user or has_own_network else command,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            assert first, "the agent did not start a lease"
            yield OtherAgent(process, SandboxHandle.from_json(json.loads(first)), [])
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _order(folder: Path, spec: LeaseSpec, isolation: str | None, uid: int) -> Path:
    state = folder / "state"
    state.mkdir(mode=0o700)
    values = dataclasses.asdict(spec)
    if spec.archive_path:
        values["archive_path"] = shutil.copy(spec.archive_path, folder)
    order = folder / "order.json"
    settings = {"state_dir": str(state), "runtime_path": str(REPOSITORY / "client"), "isolation": isolation}
    order.write_text(json.dumps({"settings": settings, "spec": values}))
    if uid != os.geteuid():
        for path in (folder, state, order, *folder.iterdir()):
            os.chown(path, uid, uid)
    return order


def _elsewhere(command: list[str], folder: str, uid: int, has_own_network: bool) -> list[str]:
    job_base = Path(os.path.realpath(JOB_PYTHON)).parents[1]
    folders = dict.fromkeys([str(REPOSITORY), sys.prefix, sys.base_prefix, str(job_base), folder])
    network, network_name = (["--net"], "own-network") if has_own_network else ([], "machine-network")
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    unshare = ["unshare", *user, "--mount", "--propagation=private", *network]
    return [*unshare, sys.executable, str(PROGRAMS / "as_other_user.py"), str(uid), network_name, *folders, "--", *command]
