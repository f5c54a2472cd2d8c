"""docs/scenario.md keeps its promises: its example is valid and can be run."""

from __future__ import annotations

import re
from pathlib import Path

from domain.states import JobState
from scheduler.sim import reading
from scheduler.sim.answers import answer
from scheduler.sim.simulate import simulate

DOCUMENT = Path(__file__).parents[2] / "docs/scenario.md"


def example() -> str:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return str(text)


def test_example_can_be_decided() -> None:
    assert [start["job"] for start in answer(reading.read(example()))["starts"]] == ["x"]


def test_all_jobs_of_the_example_succeed() -> None:
    found = simulate(reading.read(example()), stopwatch=lambda: 0, rss_peak_bytes=lambda: 0)
    assert {job["state"] for job in found["jobs"].values()} == {JobState.SUCCEEDED.value}
