"""Tables for people of what `terraced decide` and `terraced simulate` found.

Owns columns and wording; takes the printed JSON form and computes nothing. Called by scenario_commands.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 140
JOBS_SHOWN_MAXIMUM = 200
DEVICES_SHOWN_MAXIMUM = 16


def decision(found: dict[str, Any]) -> str:
    """Return the tables of one decision: starts, preemptions, waiting jobs."""
    starts = _table("Starts", "Job", "Attempt", "Place", "Borrowed GPUs")
    for start in found["starts"][:JOBS_SHOWN_MAXIMUM]:
        borrowed = ", ".join(f"{model} {milli / 1000:g}" for model, milli in start["borrowed"].items())
        _row(starts, start["job"], str(start["attempt"]), _place(start["slices"]), borrowed or "-")
    preempt = _table("Preemptions", "Job", "Cause", "For")
    for item in found["preempt"][:JOBS_SHOWN_MAXIMUM]:
        _row(preempt, item["job"], item["cause"], item["for"])
    waiting = _table("Waiting", "Job", "Reason", "Numbers", "Unblocks when", "Starts, at the latest known estimate")
    for item in found["waiting"][:JOBS_SHOWN_MAXIMUM]:
        numbers = ", ".join(f"{name} {value}" for name, value in item["data"].items())
        _row(waiting, item["job"], item["code"], numbers or "-", item["unblocks_when"].replace("_", " "), _forecast(item))
    left_out = [_left_out(found[section], section) for section in ("starts", "preempt", "waiting")]
    return _render([table for table in (starts, preempt, waiting) if table.row_count], left_out, empty="Nothing to decide.")


def simulation(found: dict[str, Any]) -> str:
    """Return the tables of a simulation: metrics, then jobs."""
    metrics = _table("Metrics", "Metric", "Value")
    for name, value in found["metrics"].items():
        figures = ", ".join(f"{part} {figure:g}" for part, figure in value.items()) if isinstance(value, dict) else f"{value:,}"
        _row(metrics, name, figures)
    jobs = _table("Jobs", "Job", "State", "Submitted", "Started", "Ended", "Attempts", "Code", "Place")
    for name, job in list(found["jobs"].items())[:JOBS_SHOWN_MAXIMUM]:
        times = [_seconds(job[key]) for key in ("submitted", "started", "ended")]
        _row(jobs, name, job["state"], *times, str(job["attempts"]), job["code"] or "-", _place(job["slices"]))
    return _render([metrics, jobs], [_left_out(found["jobs"], "jobs")], empty="")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    # Names come from the file: brackets in them are text, not markup.
    table.add_row(*(Text(cell) for cell in cells))


def _render(tables: Iterable[Table], left_out: Iterable[str], *, empty: str) -> str:
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, highlight=False)
    printed = False
    for table in tables:
        console.print(table)
        printed = True
    for line in left_out:
        if line:
            console.print(line, markup=False)
    if not printed and empty:
        console.print(empty)
    return text.getvalue()


def _left_out(entries: Any, section: str) -> str:
    more = len(entries) - JOBS_SHOWN_MAXIMUM
    return f"{more} more under {section}: --format json shows all." if more > 0 else ""


def _place(slices: list[dict[str, Any]]) -> str:
    places = []
    for node, on_node in groupby(slices, key=lambda piece: piece["node"]):
        devices = [str(piece["device"]) for piece in on_node if piece["device"] is not None]
        shown = ",".join(devices[:DEVICES_SHOWN_MAXIMUM]) + (",…" if len(devices) > DEVICES_SHOWN_MAXIMUM else "")
        places.append(f"{node}/{shown}" if devices else str(node))
    return " ".join(places) or "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _forecast(item: dict[str, Any]) -> str:
    if item["forecast_start"] is not None:
        return f"{item['forecast_start']:g} s"
    return f"not before {item['not_before']:g} s" if "not_before" in item else "-"
