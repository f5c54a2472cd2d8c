"""Whatever ends the demo, the service that it started ends with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from examples.demo import Demo, DemoFailedError, leaving_nothing_running

ERRORS = [DemoFailedError("no"), KeyboardInterrupt(), ValueError("nobody thought of it")]


def fail(demo: Demo, error: BaseException) -> None:
    with leaving_nothing_running(demo):
        demo.service = subprocess.Popen(["sleep", "1000"])
        raise error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_service_ends_with_the_demo(tmp_path: Path, error: BaseException) -> None:
    demo = Demo(Console(quiet=True), tmp_path, tmp_path / "python")

    with pytest.raises(type(error)):
        fail(demo, error)

    assert demo.service is not None
    assert demo.service.poll() is not None
