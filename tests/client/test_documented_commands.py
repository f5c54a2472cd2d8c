"""Every `terrace` line that a document or the service itself tells people to type is one that the command understands."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.client.command import Terrace
from tests.support.service import REPOSITORY

DOCUMENTS = (
    "README.md",
    "docs/guides/usage.md",
    "docs/cli.md",
    "terraced/up.py",
    "examples/digits/train.py",
    "examples/digits_gang/train.py",
    "examples/digits_checkpoint/train.py",
)
# A line of a shell block, of a printed hint or of a docstring; ends where the shell or the text goes on with something else.
TYPED = re.compile(r"(?:^|[\s(`\"])(terrace (?:-|[a-z])[^\n|&;#`>)]*)")
NOT_LOGGED_IN, INVALID = 6, 2


def lines() -> list[str]:
    found = []
    for name in DOCUMENTS:
        blocks = (REPOSITORY / name).read_text()
        if name.endswith(".md"):
            blocks = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", blocks, flags=re.DOTALL))
        for typed in TYPED.findall(blocks):
            text = typed.split("  ")[0].replace('")', "").replace("{started.url}", "http://127.0.0.1:8470").rstrip('" ')
            if not text.startswith("terrace import"):
                found.append(text)
    return list(dict.fromkeys(found))


def test_there_are_lines_to_look_at() -> None:
    assert len(lines()) >= 15
    assert "terrace ops quota set acme h200 4" in lines()


@pytest.mark.parametrize("line", lines())
def test_a_documented_line_is_understood(terrace_command: Terrace, line: str) -> None:
    (arguments := shlex.split(line)).pop(0)
    if "-f" in arguments and "submit" in arguments:
        (terrace_command.config.parent / "work" / "job.yaml").write_text("command: 'true'\n")
    ended = terrace_command(*arguments)
    if "login" in arguments:
        assert (ended.code, ended.err.split(":")[1].strip()) == (INVALID, "invalid_input")  # understood; nobody typed a key
    else:
        assert ended.code == (0 if arguments[-1] in ("--help", "--version") else NOT_LOGGED_IN), ended.err
