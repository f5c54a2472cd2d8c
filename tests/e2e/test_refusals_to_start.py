"""`terraced up` refuses what cannot work, in one line that names the setting, and starts nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from terraced import preflight
from tests.support.service import BIN, JOB_PYTHON, free_port

pytestmark = pytest.mark.e2e


def refused(state_dir: Path, *options: str) -> str:
    arguments = [str(BIN / "terraced"), "up", f"--state-dir={state_dir}", "--agent-metrics-port=0", "--scheduler-metrics-port=0", *options]
    answer = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    return answer.stderr


def test_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused(tmp_path / "state", f"--port={port}", f"--job-python={JOB_PYTHON}")
    assert message.startswith(f"terraced: port: 127.0.0.1:{port} cannot be used")
    assert not (tmp_path / "state" / "terrace.db").exists()


def test_second_service_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    preflight.prepare_state_dir(tmp_path / "state")
    with preflight.lock_state_dir(tmp_path / "state"):
        message = refused(tmp_path / "state", f"--port={free_port()}", f"--job-python={JOB_PYTHON}")
    assert "state_dir" in message
    assert "in use by another `terraced up`" in message


def test_state_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    message = refused(tmp_path / "file" / "state", f"--port={free_port()}", f"--job-python={JOB_PYTHON}")
    assert "state_dir" in message
    assert "cannot be written" in message


def test_job_environment_without_ray_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path / "state", f"--port={free_port()}", f"--job-python={sys.executable}")
    assert "job_python: Ray is missing from the job environment" in message


def test_job_environment_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path / "state", f"--port={free_port()}", f"--job-python={tmp_path / 'python'}")
    assert "job_python" in message
    assert "does not exist" in message


@pytest.mark.parametrize(
    ("option", "field"), [("--port=70000", "port"), ("--isolation=maybe", "isolation")], ids=["port out of range", "unknown isolation"]
)
def test_setting_out_of_range_is_named(tmp_path: Path, option: str, field: str) -> None:
    assert refused(tmp_path / "state", option).startswith(f"terraced: {field}: ")
