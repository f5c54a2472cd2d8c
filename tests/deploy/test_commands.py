from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.deploy.chart import CHART, ROOT


def commands_of_the_chart() -> set[str]:
    templates = "".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").glob("*.yaml")))
    return set(re.findall(r"command: \[terraced, (\w+)", templates))


def test_chart_runs_four_commands() -> None:
    assert commands_of_the_chart() == {"api", "scheduler", "migrate", "init"}


@pytest.mark.parametrize("command", sorted(commands_of_the_chart()))
def test_command_that_the_chart_runs_exists(command: str) -> None:
    program = [sys.executable, "-m", "terraced", command, "--help"]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
