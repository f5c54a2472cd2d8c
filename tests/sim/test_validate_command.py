"""`terraced scenario validate`: one line per problem, or one line that says what the file holds."""

from __future__ import annotations

from pathlib import Path

from terraced.scenario_commands import PROBLEMS_PRINTED
from tests.sim.scenarios import WORLD
from tests.sim.test_commands import run


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_valid_file_is_summed_up_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "s.yaml", WORLD + "jobs: [{id: x, tenant: a, count: 3}]")
    result = run("scenario", "validate", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: valid: 1 node, 8 GPUs, 1 tenant, 0 running jobs, 3 queued jobs\n"


def test_every_wrong_field_gets_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "s.yaml", WORLD + "jobs: [{id: x, tenant: a, gpus: -1, colour: red}, {tenant: a}]")
    result = run("scenario", "validate", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{path}: jobs[0].gpus: must be between 0 and 256 GPUs, not -1",
        f"{path}: jobs[0].colour: unknown key",
        f"{path}: jobs[1].id: is required",
    ]


def test_every_missing_reference_gets_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "s.yaml", WORLD + "jobs: [{id: x, tenant: b}, {id: y, tenant: a, site: hue}]")
    assert run("scenario", "validate", path).stderr.splitlines() == [
        f"{path}: jobs[0].tenant: there is no tenant b",
        f"{path}: jobs[1].site: there is no site hue",
    ]


def test_one_wrong_field_of_several_types_gets_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "s.yaml", "scenario: 1\nnodes: [{name: n, mig: 5}]")
    assert run("scenario", "validate", path).stderr == f"{path}: nodes[0].mig: must be a list\n"


def test_problems_made_by_the_million_are_counted_instead(tmp_path: Path) -> None:
    jobs = ", ".join(f"{{id: x{at}}}" for at in range(PROBLEMS_PRINTED + 3))
    path = written(tmp_path, "s.yaml", f"{WORLD}jobs: [{jobs}]")
    lines = run("scenario", "validate", path).stderr.splitlines()
    assert len(lines) == PROBLEMS_PRINTED + 1
    assert lines[-1] == f"{path}: and 3 more problems"


def test_several_files_are_all_judged(tmp_path: Path) -> None:
    good, bad = written(tmp_path, "good.yaml", WORLD), written(tmp_path, "bad.yaml", "scenario: 2")
    result = run("scenario", "validate", bad, tmp_path / "none.yaml", good)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"{bad}: scenario: must be between 1 and 1, not 2",
        f"{tmp_path / 'none.yaml'}: No such file or directory",
    ]
    assert result.stdout == f"{good}: valid: 1 node, 8 GPUs, 1 tenant, 0 running jobs, 0 queued jobs\n"
