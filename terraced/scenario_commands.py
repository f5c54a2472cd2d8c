"""`terraced decide`, `simulate` and `scenario`: ask the decision core "what if", check scenario files and make them from manifests.

Owns arguments, exit codes and the reading of files. Does not own the format or any rule (scheduler/sim/), or tables
(scenario_tables.py). Standard output carries the answer and nothing else. Exit codes: 0 answered; 2 the file breaks the
format, a line on standard error for each problem names the path of the field; 3 it is valid and asks for something not supported yet.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from scheduler.sim import answers, kueue, kueue_documents, reading
from scheduler.sim.problems import ScenarioError, UnsupportedError
from scheduler.sim.scenario import Scenario
from scheduler.sim.simulate import simulate
from terraced import scenario_tables

EXIT_INVALID = 2
EXIT_UNSUPPORTED = 3
PROBLEMS_PRINTED = 100  # per file; a file made by a program can be wrong a million times in the same way
MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")
MANIFEST_FILES_MAXIMUM = 10_000
KIB_BYTES = 1024  # the unit of ru_maxrss on Linux


class OutputFormat(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


File = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (docs/scenario.md).")]
Files = Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenario files (docs/scenario.md).")]
Manifests = Annotated[Path, typer.Argument(metavar="DIR", help="A folder with Kueue manifests (.yaml, .yml, .json), or one file.")]
GpuResource = Annotated[str, typer.Option("--gpu-resource", metavar="NAME", help="The resource that counts GPUs.")]
Output = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write the scenario here instead of to standard output.")]
Format = Annotated[OutputFormat, typer.Option("--format", help="table for people, json for programs.")]
Events = Annotated[Path | None, typer.Option("--events", metavar="FILE", help="Write one JSON line per start, end and preemption.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `terraced` command."""
    app.command(name="decide")(decide_command)
    app.command(name="simulate")(simulate_command)
    scenario_app = typer.Typer(no_args_is_help=True, help="Work with scenario files.")
    scenario_app.command(name="validate")(validate_command)
    scenario_app.command(name="from-kueue")(from_kueue_command)
    app.add_typer(scenario_app, name="scenario")


def decide_command(scenario: File, output: Format = OutputFormat.TABLE) -> None:
    """Decide once on the state that SCENARIO describes; nothing is executed."""
    found = _ask(scenario, answers.answer)
    _print(found, output, scenario_tables.decision)


def simulate_command(scenario: File, output: Format = OutputFormat.TABLE, events: Events = None) -> None:
    """Let virtual time run until all jobs of SCENARIO have ended, or until its `until`."""
    with ExitStack() as open_files:
        emit = None
        if events is not None:
            try:
                lines = open_files.enter_context(events.open("w", encoding="utf-8"))
            except OSError as error:
                _refuse(events, error.strerror or "cannot be written", EXIT_INVALID)

            def emit(entry: dict[str, Any]) -> None:
                lines.write(json.dumps(entry) + "\n")

        found = _ask(scenario, lambda read: simulate(read, stopwatch=time.perf_counter_ns, rss_peak_bytes=_rss_peak_bytes, emit=emit))
    _print(found, output, scenario_tables.simulation)


def validate_command(scenarios: Files) -> None:
    """Check each SCENARIO against the whole format, also what cannot be decided yet."""
    is_valid = True
    for path in scenarios:
        found, problems = _examine(path)
        for problem in problems[:PROBLEMS_PRINTED]:
            _complain(path, str(problem))
        if len(problems) > PROBLEMS_PRINTED:
            _complain(path, f"and {len(problems) - PROBLEMS_PRINTED} more problems")
        if found is None:
            is_valid = False
        else:
            typer.echo(f"{path}: valid: {_summary(found)}")
    if not is_valid:
        raise typer.Exit(EXIT_INVALID)


def from_kueue_command(manifests: Manifests, gpu_resource: GpuResource = kueue.GPU_RESOURCE, output: Output = None) -> None:
    """Turn Kueue manifests into a scenario; standard error names every field that had to be left out."""
    texts: dict[str, str] = {}
    for path in _manifest_files(manifests):
        try:
            texts[str(path)] = path.read_text(encoding="utf-8")
        except OSError as error:
            _refuse(path, error.strerror or "cannot be read", EXIT_INVALID)
        except UnicodeDecodeError as error:
            _refuse(path, f"is not UTF-8 at byte {error.start}", EXIT_INVALID)
    try:
        found = kueue.convert(texts, gpu_resource=gpu_resource)
    except kueue_documents.KueueError as error:
        _say(str(error))
        raise typer.Exit(EXIT_INVALID) from None
    text = kueue.to_yaml(found.scenario)
    _, problems = reading.examine(text)
    if problems:
        _refuse(manifests, f"has no scenario: {problems[0]}", EXIT_INVALID)
    for note in found.notes:
        _say(str(note))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        _refuse(output, error.strerror or "cannot be written", EXIT_INVALID)


def _manifest_files(folder: Path) -> list[Path]:
    """Return the manifests in a folder, or the one file that is named, with bounds on their number and size."""
    try:
        files = sorted(path for path in folder.rglob("*") if path.suffix in MANIFEST_SUFFIXES and path.is_file()) or [folder]
        if files == [folder] and folder.is_dir():
            _refuse(folder, f"holds no file with {', '.join(MANIFEST_SUFFIXES)}", EXIT_INVALID)
        if len(files) > MANIFEST_FILES_MAXIMUM or sum(path.stat().st_size for path in files) > reading.FILE_BYTES_MAXIMUM:
            _refuse(folder, f"holds more than {MANIFEST_FILES_MAXIMUM} manifests or {reading.FILE_BYTES_MAXIMUM} bytes", EXIT_INVALID)
    except OSError as error:
        _refuse(folder, error.strerror or "cannot be read", EXIT_INVALID)
    return files


def _summary(scenario: Scenario) -> str:
    nodes = sum(part.count or 1 for part in scenario.nodes)
    gpus = sum(part.gpus * (part.count or 1) for part in scenario.nodes)
    jobs = sum(part.count or 1 for part in scenario.jobs)
    counts = (
        (nodes, "node"),
        (gpus, "GPU"),
        (len(scenario.tenants), "tenant"),
        (len(scenario.running), "running job"),
        (jobs, "queued job"),
    )
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _print(found: dict[str, Any], output: OutputFormat, table: Callable[[dict[str, Any]], str]) -> None:
    typer.echo(json.dumps(found, indent=2) if output is OutputFormat.JSON else table(found), nl=output is OutputFormat.JSON)


def _rss_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB_BYTES


def _read(path: Path) -> Scenario:
    scenario, problems = _examine(path)
    if scenario is None:
        _refuse(path, str(problems[0]), EXIT_INVALID)
    return scenario


def _examine(path: Path) -> tuple[Scenario | None, list[ScenarioError]]:
    try:
        if path.stat().st_size > reading.FILE_BYTES_MAXIMUM:
            return None, [ScenarioError("", f"the file is larger than {reading.FILE_BYTES_MAXIMUM} bytes")]
        return reading.examine(path.read_text(encoding="utf-8"))
    except OSError as error:
        return None, [ScenarioError("", error.strerror or "cannot be read")]
    except UnicodeDecodeError as error:
        return None, [ScenarioError("", f"is not UTF-8 at byte {error.start}")]


def _ask(path: Path, question: Callable[[Scenario], dict[str, Any]]) -> dict[str, Any]:
    scenario = _read(path)
    try:
        return question(scenario)
    except ScenarioError as error:
        _refuse(path, str(error), EXIT_INVALID)
    except UnsupportedError as error:
        _refuse(path, str(error), EXIT_UNSUPPORTED)


def _refuse(path: Path, message: str, status: int) -> NoReturn:
    _complain(path, message)
    raise typer.Exit(status)


def _complain(path: Path, message: str) -> None:
    _say(f"{path}: {message}")


def _say(message: str) -> None:
    # One line whatever the path or the message holds: scripts read it as one.
    typer.echo(" ".join(message.split()), err=True)
