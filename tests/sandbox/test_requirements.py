"""Which lines of a requirements file are accepted: nothing that could run code or read files where the network still is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.sandbox import overlay
from agents.sandbox.overlay import RequirementsError


def test_packages_and_wheels_are_accepted_one_a_line() -> None:
    text = """
# what the job needs
numpy==2.1.0  # pinned
ray[default] >= 2 , < 3 ; python_version >= "3.11"
fast-things \\
    --hash=sha256:0123456789abcdef
./wheels/mine-1.0-py3-none-any.whl
beside-1.0-py3-none-any.whl
other @ https://host.example/other-1.0-py3-none-any.whl#sha256=ab
"""
    assert overlay.accepted(text, working_dir=Path("/lease/my work")) == [
        "numpy==2.1.0",
        'ray[default] >= 2 , < 3 ; python_version >= "3.11"',
        "fast-things --hash=sha256:0123456789abcdef",
        "file:///lease/my%20work/wheels/mine-1.0-py3-none-any.whl",
        "file:///lease/my%20work/beside-1.0-py3-none-any.whl",
        "other @ https://host.example/other-1.0-py3-none-any.whl#sha256=ab",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "--no-binary :all:",
        "--index-url https://host.example",
        "-r /etc/passwd",
        "-c constraints.txt",
        "-e .",
        ".",
        "./package",
        "../x-1.0-py3-none-any.whl",
        "/x-1.0-py3-none-any.whl",
        "package.tar.gz",
        "Package.ZIP[extra]==1",
        "git+https://host.example/x",
        "x @ git+https://host.example/x",
        "x @ https://host.example/x-1.0.tar.gz",
        "x @ file:///x-1.0-py3-none-any.whl",
        "x @ http://host.example/x-1.0-py3-none-any.whl",
        "https://host.example/x-1.0-py3-none-any.whl",
        "x @ https://host.example/${PIP_INDEX_URL}/x-1.0-py3-none-any.whl",
        "x==${SECRET}",
        "x==1 --config-settings=a",
        "x ; python_version > '3' --no-binary x",
        "x\u2028--no-binary :all:",
        "x\v--no-binary :all:",
        "x \\\n--no-binary :all:",
    ],
)
def test_anything_else_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(RequirementsError, match=r"requirements: line \d+: .*only packages by name and version"):
        overlay.accepted(f"numpy\n{line}\n", working_dir=Path("/lease/work"))


def test_comment_swallows_the_rest_of_a_continued_line() -> None:
    assert overlay.accepted("# a comment \\\n--no-binary :all:\nnumpy", working_dir=Path("/lease/work")) == ["numpy"]
