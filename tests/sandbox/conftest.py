from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.sandbox import machine
from agents.sandbox.spec import LeaseSpec, SandboxSettings
from agents.sandbox.supervise import Sandbox
from tests.sandbox import plain_environment
from tests.support import leases
from tests.support.service import JOB_PYTHON
from tests.support.waiting import wait_until


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where the machine gives no namespaces; there the tests of isolation none hold."""
    refusal = machine.namespaces_refusal(60_600 if os.geteuid() == 0 else None)
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


@pytest.fixture(scope="session")
def plain_runtime() -> Iterator[Path]:
    """The folder of a job environment whose Ray is plain_ray.py."""
    with plain_environment.made() as folder:
        yield folder


class Leases:
    """Starts leases and takes all of them down afterwards."""

    def __init__(self, settings: SandboxSettings, *, job_python: str | None = None) -> None:
        self.settings = settings
        self._job_python = job_python
        self._sandboxes: list[Sandbox] = []

    def start(self, spec: LeaseSpec) -> leases.Followed:
        """Start one."""
        if self._job_python is not None:
            spec = dataclasses.replace(spec, job_python=self._job_python)
        return leases.started(spec, self.settings, self._sandboxes.append)

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_error: object) -> None:
        """Kill what still lives and see that it is gone."""
        for sandbox in self._sandboxes:
            if not Path(sandbox.handle.lease_dir).exists():
                continue
            sandbox.kill()
            wait_until(sandbox.is_gone, seconds=20)
            sandbox.discard()


@pytest.fixture(scope="module")
def machine_leases(state_dir: Path, namespaces: None, job_environment: None) -> Iterator[Leases]:
    """Leases with namespaces on this machine."""
    with Leases(leases.settings(state_dir)) as started:
        yield started


@pytest.fixture
def plain_leases(plain_runtime: Path, namespaces: None) -> Iterator[Leases]:
    """Leases with namespaces whose cluster is plain_ray.py: up at once."""
    with tempfile.TemporaryDirectory(prefix="terrace-") as folder:
        of = leases.settings(Path(folder).resolve() / "state", runtime_path=plain_runtime)
        with Leases(of, job_python=plain_environment.PYTHON) as started:
            yield started
