"""docs/guides/from-kueue.md shows what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sim.test_commands import run

GUIDE = Path(__file__).parents[2] / "docs/guides/from-kueue.md"


def printed(command: str) -> str:
    """Return what the guide shows below a command."""
    (text,) = re.findall(rf"```\n\$ {re.escape(command)}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return str(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (manifests,) = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    Path("cluster.yaml").write_text(manifests)
    return tmp_path


def test_worked_example_prints_what_the_guide_shows(folder: Path) -> None:
    result = run("scenario", "from-kueue", "cluster.yaml", "--output", "world.yaml")
    assert result.exit_code == 0
    assert result.stderr == printed("terraced scenario from-kueue cluster.yaml --output world.yaml")
    assert (folder / "world.yaml").read_text() == printed("cat world.yaml")
    assert run("decide", "world.yaml", "--format", "json").stdout == printed("terraced decide world.yaml --format json")


def test_without_reclaim_the_example_waits_for_quota(folder: Path) -> None:
    text = printed("cat world.yaml").replace(", preemption: {reclaim_within_cohort: any}", "")
    (folder / "world.yaml").write_text(text)
    assert '"code": "quota_exceeded"' in run("decide", "world.yaml", "--format", "json").stdout
