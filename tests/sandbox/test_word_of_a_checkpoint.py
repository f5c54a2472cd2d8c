"""What is saved reaches the agent, however slow the agent and however busy the runner: the choice of whom to preempt rests on it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from terrace.runtime import progress
from terrace.runtime.channel import Channel
from terrace.runtime.reports import Reports


class Line:
    """The runner's two ends, and the agent's, which is read only when `arrived` is called."""

    def __init__(self, path: Path) -> None:
        self._runners, self._agents = socket.socketpair()
        self.channel, self.reports = Channel(self._runners), Reports(path)

    def choke(self) -> None:
        """Send so much that the channel is full."""
        while not self.channel.is_full:
            self.channel.send("log", text="x" * 32_768)

    def arrived(self) -> list[dict[str, Any]]:
        """Return the progress that the agent has when it has read everything."""
        data = b""
        self._agents.setblocking(False)
        while True:
            is_all_sent = self.channel.flush()
            try:
                data += self._agents.recv(1 << 20)
            except BlockingIOError:
                if is_all_sent:
                    break
        messages = [json.loads(line) for line in data.splitlines()]
        return [message for message in messages if message.pop("kind") == "progress"]

    def close(self) -> None:
        """Let go of everything."""
        self.reports.close()
        self._runners.close()
        self._agents.close()


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setenv("TERRACE_PROGRESS_SOCKET", str(tmp_path / "progress"))
    opened = Line(tmp_path / "progress")
    yield opened
    opened.close()


def saved(step: int) -> dict[str, Any]:
    return {"step": step, "total": None, "metrics": {}, "checkpoint": True}


@pytest.mark.parametrize("is_final", [True, False], ids=["at the end of the lease", "while it runs"])
def test_newest_checkpoint_waits_for_an_agent_that_reads_nothing(is_final: bool, line: Line) -> None:
    line.choke()
    progress.report_checkpoint(step=6)
    progress.report_checkpoint(step=7)
    progress.report_progress(step=8)
    line.reports.pass_on(line.channel, is_final=is_final)
    before = [] if is_final else line.arrived()
    line.reports.pass_on(line.channel)

    assert [*before, *line.arrived()] == [saved(7)]


def test_checkpoint_that_waited_comes_before_what_was_reported_later(line: Line) -> None:
    line.choke()
    progress.report_checkpoint(step=1)
    line.reports.pass_on(line.channel)
    line.arrived()
    progress.report_progress(step=2)
    line.reports.pass_on(line.channel)

    assert line.arrived() == [saved(1), {"step": 2, "total": None, "metrics": {}}]


def test_report_of_a_checkpoint_waits_a_moment_for_a_busy_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_PROGRESS_SOCKET", str(tmp_path / "busy"))
    monkeypatch.setattr(progress, "CHECKPOINT_SECONDS_MAX", 60.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as runner, futures.ThreadPoolExecutor(1) as job:
        runner.bind(str(tmp_path / "busy"))
        while progress.report_progress(step=1):
            pass
        taken = job.submit(progress.report_checkpoint, step=2)
        is_waiting = not futures.wait([taken], timeout=0.2).done
        while json.loads(runner.recv(4_096)) != saved(2):
            pass

    assert (is_waiting, taken.result()) == (True, True)


def test_nobody_waits_for_a_runner_that_stays_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_PROGRESS_SOCKET", str(tmp_path / "busy"))
    monkeypatch.setattr(progress, "CHECKPOINT_SECONDS_MAX", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as runner:
        runner.bind(str(tmp_path / "busy"))
        while progress.report_progress(step=1):
            pass

        assert not progress.report_checkpoint(step=2)
