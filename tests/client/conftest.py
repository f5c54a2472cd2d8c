"""The service, and the command line in this process or in one of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.command import Terrace
from tests.client.service import Service


@pytest.fixture
def service(sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    """A running service that nobody uses yet: no tenant, no node."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    running = Service(sqlite_url, state_dir)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's time zone is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of the test: one small program."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def terrace_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workdir: Path, in_utc: None
) -> Terrace:
    """The command line with nobody logged in."""
    for name in ("TERRACE_URL", "TERRACE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERRACE_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Terrace(monkeypatch, capsys, tmp_path / "config.toml")


@pytest.fixture
def ada(service: Service, terrace_command: Terrace) -> Terrace:
    """The command line of a member of tenant acme, which may hold 4 GPUs; there is no node yet."""
    return terrace_command.speak_for(service.url, service.member())


@pytest.fixture
def operator(service: Service, terrace_command: Terrace) -> Terrace:
    """The command line of the first operator."""
    return terrace_command.speak_for(service.url, service.operator_key)
