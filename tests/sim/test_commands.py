"""The commands themselves: what is printed where, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from terraced import scenario_commands
from tests.sim.scenarios import WORLD


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    scenario_commands.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "world.yaml"
    path.write_text(WORLD + "jobs: [{id: 'x [y]', tenant: a, run: 5}, {id: z, tenant: a, gpus: 9}]")
    return path


def test_decide_prints_json_and_nothing_else(scenario: Path) -> None:
    result = run("decide", scenario, "--format", "json")
    assert result.exit_code == 0
    assert [start["job"] for start in json.loads(result.stdout)["starts"]] == ["x [y]"]
    assert result.stderr == ""


def test_decide_prints_a_table_for_people(scenario: Path) -> None:
    result = run("decide", scenario)
    assert result.exit_code == 0
    assert "x [y]" in result.stdout
    assert "exceeds_maximum" in result.stdout


def test_simulate_prints_jobs_and_metrics(scenario: Path) -> None:
    result = run("simulate", scenario, "--format", "json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["jobs"]["x [y]"]["ended"] == 5.0
    assert found["metrics"]["rss_peak_bytes"] > 0
    assert found["metrics"]["decisions_per_second"] > 0


def test_simulate_prints_tables_for_people(scenario: Path) -> None:
    result = run("simulate", scenario)
    assert result.exit_code == 0
    assert "makespan_seconds" in result.stdout


def test_simulate_writes_one_line_per_event(scenario: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    assert run("simulate", scenario, "--events", events).exit_code == 0
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()] == ["start", "end"]


def test_valid_scenario_is_told_valid_although_it_cannot_be_decided_yet(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(WORLD + "jobs: [{id: x, tenant: a, gpus: 0.5}]")
    assert run("scenario", "validate", path).exit_code == 0
    result = run("decide", path, "--format", "json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"{path}: jobs[0].gpus: not supported yet\n"


@pytest.mark.parametrize("command", [("decide",), ("simulate",), ("scenario", "validate")], ids=" ".join)
def test_wrong_field_exits_two_with_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(WORLD + "jobs: [{id: x, tenant: a, gpus: 1.5}]")
    result = run(*command, path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{path}: jobs[0].gpus: must be 0, an integer or a fraction below 1, not 1.5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "No such file or directory", id="missing file"),
        pytest.param(b"\xff", "is not UTF-8 at byte 0", id="not text"),
    ],
)
def test_file_that_cannot_be_read_exits_two(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    if content is not None:
        path.write_bytes(content)
    result = run("decide", path)
    assert (result.exit_code, result.stderr) == (2, f"{path}: {message}\n")
