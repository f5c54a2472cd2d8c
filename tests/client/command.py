"""The command line as tests call it: in this process, with its environment, its two outputs and its exit code."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from terrace.cli import app


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document that it printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """What it printed, line by line."""
        return self.out.splitlines()


class Terrace:
    """`terrace` for one person."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.config = config

    def speak_for(self, url: str, key: str) -> Terrace:
        """Set the environment variables of a person."""
        self._monkeypatch.setenv("TERRACE_URL", url)
        self._monkeypatch.setenv("TERRACE_API_KEY", key)
        return self

    def __call__(self, *arguments: str | Path, typed: str = "") -> Ended:
        """Run a command; `typed` is its standard input."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = app.run([str(argument) for argument in arguments])
        written = self._capsys.readouterr()
        return Ended(code, written.out, written.err)

    def ok(self, *arguments: str | Path, typed: str = "") -> Ended:
        """Run a command that must succeed."""
        ended = self(*arguments, typed=typed)
        assert ended.code == 0, ended.err
        return ended
