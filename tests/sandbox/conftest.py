from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.sandbox import machine
from agents.sandbox.spec import LeaseSpec, SandboxSettings
from agents.sandbox.supervise import Sandbox
from tests.support import leases
from tests.support.service import JOB_PYTHON
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where the machine gives no namespaces; there the tests of isolation none hold."""
    refusal = machine.namespaces_refusal(61_000 if os.geteuid() == 0 else None)
    if refusal is not None:
        pytest.skip(f"no namespaces for leases on this machine: {refusal}")


@pytest.fixture(scope="session")
def job_environment() -> None:
    """Skip where the job environment was not made; CI makes it first."""
    if not JOB_PYTHON.exists():
        pytest.skip("there is no job environment: make setup")


@pytest.fixture(scope="module")
def state_dir() -> Iterator[Path]:
    """A short path of its own, as a service's state directory."""
    with tempfile.TemporaryDirectory(prefix="terrace-") as folder:
        yield Path(folder).resolve() / "state"


class Leases:
    """Starts leases and takes all of them down afterwards."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self._sandboxes: list[Sandbox] = []

    def start(self, spec: LeaseSpec) -> leases.Followed:
        """Start one."""
        return leases.started(spec, self.settings, self._sandboxes.append)

    def end(self) -> None:
        """Kill what still lives and see that it is gone."""
        for sandbox in self._sandboxes:
            sandbox.kill()
            wait_until(sandbox.is_gone, seconds=20)
            sandbox.discard()


@pytest.fixture(scope="module")
def machine_leases(state_dir: Path, namespaces: None, job_environment: None) -> Iterator[Leases]:
    """Leases with namespaces on this machine."""
    started = Leases(leases.settings(state_dir))
    yield started
    started.end()
