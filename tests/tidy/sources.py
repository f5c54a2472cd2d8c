"""The files that the house rules look at: what git tracks, and what it would track at the next commit.

It owns the listing and the parsing, once per run. It judges nothing: rules stand in `code_rules.py` and `text_rules.py`,
and the tests beside them apply each rule to every file here and to a small sample that must be refused.
"""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One file: its path from the repository's root, with slashes, and its text."""

    path: str
    text: str

    @property
    def is_python(self) -> bool:
        """Tell whether Python reads this file."""
        return self.path.endswith(".py")

    @property
    def is_test(self) -> bool:
        """Tell whether the file belongs to the tests, their support included."""
        return self.path.startswith("tests/")

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The parsed module; a SyntaxError names the file."""
        return ast.parse(self.text, filename=self.path)


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule: a line number, 1 for the whole file, and what is wrong there."""

    line: int
    message: str


Rule = Callable[[Source], Iterator[Finding]]


@functools.cache
def all_sources() -> tuple[Source, ...]:
    """Return every text file that git tracks or does not ignore, by path; skips the test outside a git checkout."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the files that belong to the repository")
    return tuple(_readable(sorted(set(listing.stdout.decode().split("\0")) - {""})))


def _readable(paths: list[str]) -> Iterator[Source]:
    for path in paths:
        file = ROOT / path
        if not file.is_file() or file.is_symlink() or file.stat().st_size > TEXT_BYTES_MAX:
            continue
        try:
            yield Source(path, file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:  # an image or an archive has no words to judge
            continue


def python_sources() -> tuple[Source, ...]:
    """Return the Python files among `all_sources()`."""
    return tuple(source for source in all_sources() if source.is_python)


def complaints(rule: Rule, sources: tuple[Source, ...]) -> str:
    """Return every finding of `rule` as `path:line: message`, followed by the rule's own reason; empty when all comply."""
    lines = [f"{source.path}:{finding.line}: {finding.message}" for source in sources for finding in rule(source)]
    return "\n".join([*lines, "", rule.__doc__ or ""]) if lines else ""
