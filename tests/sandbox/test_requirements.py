"""Which lines of a requirements file are accepted: nothing that could run code or read files where the network still is."""

from __future__ import annotations

import zipfile
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
    assert overlay.accepted(text, working_dir=Path("/lease/my work"), wheel_hosts=("Host.example", "other.example:8443")) == [
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
        "x @ https://user@host.example/x-1.0-py3-none-any.whl",
        "x @ https://host.example\\@elsewhere.example/x-1.0-py3-none-any.whl",
        "x @ https://[::1]/x-1.0-py3-none-any.whl",
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
        overlay.accepted(f"numpy\n{line}\n", working_dir=Path("/lease/work"), wheel_hosts=("host.example",))


@pytest.mark.parametrize("hosts", [(), ("elsewhere.example", "host.example:8443", "ost.example")], ids=["none is allowed", "others are"])
def test_wheel_by_address_comes_from_an_allowed_host_only(hosts: tuple[str, ...]) -> None:
    with pytest.raises(RequirementsError, match=r"line 1: host\.example is not among the hosts .*wheel_hosts: (none|elsewhere)"):
        overlay.accepted("x @ https://host.example/x-1.0-py3-none-any.whl", working_dir=Path("/lease/work"), wheel_hosts=hosts)


@pytest.mark.parametrize(
    "need",
    ["other @ https://169.254.169.254/other-1.0-py3-none-any.whl", "other@http://host.example/o.whl", "other\n @ file:///x"],
)
def test_wheel_of_the_working_directory_may_not_send_pip_elsewhere(need: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mine-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: mine\nVersion: 1.0\nRequires-Dist: {need}\n")

    with pytest.raises(RequirementsError, match=r"mine-1\.0-py3-none-any\.whl: depends on 'other"):
        overlay.accepted("mine-1.0-py3-none-any.whl", working_dir=tmp_path)


def test_comment_swallows_the_rest_of_a_continued_line() -> None:
    assert overlay.accepted("# a comment \\\n--no-binary :all:\nnumpy", working_dir=Path("/lease/work")) == ["numpy"]
