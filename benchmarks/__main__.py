"""`make bench`: run every measurement, print one table, rewrite docs/benchmarks.md.

Each measurement is a module of this folder that prints one JSON row per figure on standard output:
{"bench", "case", "figure", "unit"} and optionally {"peer", "peer_figure", "ratio", "note"}. A measurement that fails is reported
as failed and does not stop the others. Figures are medians of repeated runs unless the row's note says otherwise.
Nothing here is a test: no figure fails a build.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs/benchmarks.md"
SECONDS_MAXIMUM = 900
VERSIONS_OF = ("fastapi", "uvicorn", "sqlalchemy", "pydantic", "httpx", "psycopg")


@dataclass(frozen=True)
class Measurement:
    """One module to run and the heading of its rows."""

    module: str
    title: str
    needs_job_python: bool = False


MEASUREMENTS = (
    Measurement("benchmarks.intake", "Durable intake over HTTP, with authentication, idempotency and validation"),
    Measurement("benchmarks.store", "Durable commits"),
    Measurement("benchmarks.decision", "Decisions of the core on 1,000 nodes"),
    Measurement("benchmarks.starts", "Durable starts through the live loop"),
    Measurement("benchmarks.replay", "Kueue's scalability workloads in real time, beside their simulation"),
    Measurement("benchmarks.cycles", "Rounds of the live loop on a large fleet"),
    Measurement("benchmarks.first_line", "Queued to the user code's first line, beside plain Ray", needs_job_python=True),
    Measurement("benchmarks.memory", "Memory of the idle service", needs_job_python=True),
)


@dataclass
class Outcome:
    """What a measurement printed, how long it took, and its error if it failed."""

    measurement: Measurement
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None


def run(measurement: Measurement, job_python: Path) -> Outcome:
    """Run one measurement in a process of its own."""
    arguments = [sys.executable, "-m", measurement.module]
    if measurement.needs_job_python:
        arguments.append(f"--job-python={job_python}")
    began = time.monotonic()
    outcome = Outcome(measurement)
    try:
        answer = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAXIMUM, check=False)
        outcome.rows = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
        if answer.returncode != 0:
            outcome.error = answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else f"exit status {answer.returncode}"
    except subprocess.TimeoutExpired:
        outcome.error = f"stopped after {SECONDS_MAXIMUM} s"
    outcome.seconds = time.monotonic() - began
    return outcome


def machine() -> str:
    """Describe the machine: cores, memory, kernel, Python and the versions that matter."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "CPU"
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS_OF)
    system = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB, {system}; {versions}"


def cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return a row's cells: case, figure with unit, peer with figure and ratio, note."""
    peer = ""
    if row.get("peer"):
        peer = f"{row['peer']}: {number(row.get('peer_figure'))}"
        if row.get("ratio") is not None:
            peer += f" (ratio {number(row['ratio'])})"
    return str(row.get("case", "")), f"{number(row.get('figure'))} {row.get('unit', '')}".strip(), peer, str(row.get("note", ""))


def number(value: Any) -> str:
    """Return a figure with thousands separators and no more digits than it deserves."""
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def show(console: Console, outcomes: list[Outcome]) -> None:
    """Print one table per measurement."""
    for outcome in outcomes:
        table = Table(
            "case", "measured", "peer in the same run", "note", title=outcome.measurement.title, title_justify="left", expand=False
        )
        for row in outcome.rows:
            table.add_row(*cells(row))
        console.print(table)
        if outcome.error:
            console.print(f"[red]failed:[/] {outcome.error}")


def write(outcomes: list[Outcome]) -> None:
    """Rewrite the part of docs/benchmarks.md below its marker; the text above the marker is a person's."""
    marker = "<!-- rows below are written by `make bench` -->"
    above = DOCUMENT.read_text().split(marker)[0] if DOCUMENT.exists() else "# Benchmarks\n\n"
    lines = [marker, "", f"Machine: {machine()}.", f"Command: `make bench`, {time.strftime('%Y-%m-%d', time.gmtime())}.", ""]
    for outcome in outcomes:
        lines += [f"## {outcome.measurement.title}", "", f"`python -m {outcome.measurement.module}`, {outcome.seconds:.0f} s", ""]
        lines += ["| case | measured | peer in the same run | note |", "| --- | --- | --- | --- |"]
        lines += ["| " + " | ".join(cells(row)) + " |" for row in outcome.rows]
        lines += ["", f"Failed: {outcome.error}", ""] if outcome.error else [""]
    DOCUMENT.write_text(above + "\n".join(lines).rstrip("\n") + "\n")


def main() -> None:
    """Run the measurements that were asked for, all by default."""
    parser = argparse.ArgumentParser(description="Measure Terrace.")
    parser.add_argument("--job-python", type=Path, default=ROOT / ".venv-job/bin/python")
    parser.add_argument("--only", help="run only the measurement whose module ends so; the document is not rewritten")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    outcomes = []
    for measurement in MEASUREMENTS:
        if options.only and not measurement.module.endswith(options.only):
            continue
        console.print(f"measuring: {measurement.title} …")
        outcomes.append(run(measurement, options.job_python.absolute()))
    show(console, outcomes)
    if not options.only:
        write(outcomes)
        console.print(f"written to {DOCUMENT.relative_to(ROOT)}")
    sys.exit(1 if any(outcome.error for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
