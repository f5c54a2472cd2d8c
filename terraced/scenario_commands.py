"""`terraced decide`, `terraced simulate` and `terraced scenario validate`: ask the decision core "what if".

Owns arguments, tables, exit codes and the reading of files. Does not own the format or any rule (scheduler/sim/). Standard
output carries the answer and nothing else. Exit codes: 0 answered; 2 the file breaks the format, one line on standard error
names the path of the field; 3 the file is valid and asks for something not supported yet, named in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from scheduler.sim import answers, reading
from scheduler.sim.problems import ScenarioError, UnsupportedError
from scheduler.sim.scenario import Scenario

EXIT_INVALID = 2
EXIT_UNSUPPORTED = 3


class OutputFormat(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


File = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (docs/scenario.md).")]
Format = Annotated[OutputFormat, typer.Option("--format", help="table for people, json for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `terraced` command."""
    app.command(name="decide")(decide_command)
    scenario_app = typer.Typer(no_args_is_help=True, help="Work with scenario files.")
    scenario_app.command(name="validate")(validate_command)
    app.add_typer(scenario_app, name="scenario")


def decide_command(scenario: File, output: Format = OutputFormat.TABLE) -> None:
    """Decide once on the state that SCENARIO describes; nothing is executed."""
    found = _answer(scenario, answers.answer)
    typer.echo(json.dumps(found, indent=2))


def validate_command(scenario: File) -> None:
    """Check SCENARIO against the whole format, also what cannot be decided yet."""
    _read(scenario)
    typer.echo(f"{scenario}: valid")


def _read(path: Path) -> Scenario:
    try:
        if path.stat().st_size > reading.FILE_BYTES_MAXIMUM:
            _refuse(path, f"the file is larger than {reading.FILE_BYTES_MAXIMUM} bytes", EXIT_INVALID)
        return reading.read(path.read_text(encoding="utf-8"))
    except OSError as error:
        _refuse(path, error.strerror or "cannot be read", EXIT_INVALID)
    except UnicodeDecodeError as error:
        _refuse(path, f"is not UTF-8 at byte {error.start}", EXIT_INVALID)
    except ScenarioError as error:
        _refuse(path, str(error), EXIT_INVALID)


def _answer(path: Path, ask: Callable[[Scenario], dict[str, Any]]) -> dict[str, Any]:
    scenario = _read(path)
    try:
        return ask(scenario)
    except ScenarioError as error:
        _refuse(path, str(error), EXIT_INVALID)
    except UnsupportedError as error:
        _refuse(path, str(error), EXIT_UNSUPPORTED)


def _refuse(path: Path, message: str, status: int) -> NoReturn:
    typer.echo(f"{path}: {message}", err=True)
    raise typer.Exit(status)
