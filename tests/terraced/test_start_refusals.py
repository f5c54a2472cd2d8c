"""A process of the service that cannot start says why in one line and ends with 2; `terraced up` leaves nothing running behind it."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from terraced import up
from terraced.settings import Settings


def refused(command: str, **environment: str) -> str:
    given = {name: value for name, value in os.environ.items() if not name.startswith("TERRACED_")} | environment
    answer = subprocess.run([sys.executable, "-m", "terraced", command], env=given, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    return answer.stderr


@pytest.mark.parametrize("command", ["api", "scheduler"])
def test_database_without_our_schema_is_named(tmp_path: Path, command: str) -> None:
    said = refused(command, TERRACED_STATE_DIR=str(tmp_path))

    assert said.startswith("terraced: database_url: the database is at revision None, this release needs")
    assert "run `terraced migrate`" in said


def test_agent_without_its_key_says_where_it_looked(tmp_path: Path) -> None:
    said = refused("agent", TERRACED_STATE_DIR=str(tmp_path))

    assert said.startswith(f"terraced: state_dir: {tmp_path / 'node.key'}: No such file or directory")


def test_agent_does_not_send_its_key_in_clear(tmp_path: Path) -> None:
    said = refused("agent", TERRACED_STATE_DIR=str(tmp_path), TERRACED_API_URL="http://terrace.example")

    assert said.startswith("terraced: api_url: http://terrace.example would carry this node's key over the network in clear")


def test_misspelt_variable_is_named(tmp_path: Path) -> None:
    said = refused("scheduler", TERRACED_STATE_DIR=str(tmp_path), TERRACED_METRIC_HOST="::1")

    assert said == "terraced: TERRACED_METRIC_HOST: there is no such setting; did you mean TERRACED_METRICS_HOST?\n"


def test_port_in_use_is_named(sqlite_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("api", TERRACED_STATE_DIR=str(tmp_path), TERRACED_DATABASE_URL=sqlite_url, TERRACED_PORT=str(port))

    assert said.startswith(f"terraced: port: 127.0.0.1:{port} cannot be used")


def test_start_that_fails_in_a_way_nobody_thought_of_leaves_nothing_running(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, agent_metrics_port=0, scheduler_metrics_port=0)  # no operator's key is there to wait with

    with pytest.raises(FileNotFoundError):
        asyncio.run(up._serve(settings, "2.0", Console(file=io.StringIO())))

    assert [child for child in psutil.Process().children() if "terraced" in child.cmdline()] == []
