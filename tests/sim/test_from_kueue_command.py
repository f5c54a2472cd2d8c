"""`terraced scenario from-kueue`: the scenario on standard output, the report on standard error, nothing half done."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scheduler.sim import kueue, reading
from tests.sim.kueue_manifests import GPU, flavor, group, manifest, pods, queue, workload
from tests.sim.test_commands import run

QUEUE = queue("a", group({"h200": {GPU: 4}}), queueingStrategy="StrictFIFO")
JOB = workload("x", pods(2, gpu=1), created="2026-03-01T09:00:00Z", maximumExecutionTimeSeconds=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster"
    (folder / "team").mkdir(parents=True)
    (folder / "queues.yaml").write_text(manifest(flavor(), QUEUE))
    (folder / "team/jobs.yml").write_text(manifest(JOB))
    (folder / "notes.txt").write_text("- not a manifest")
    return folder


def test_scenario_is_printed_and_the_report_beside_it(folder: Path) -> None:
    result = run("scenario", "from-kueue", folder)
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout) == kueue.convert({"all.yaml": manifest(flavor(), QUEUE, JOB)}).scenario
    assert result.stderr.splitlines() == [
        f"{folder}/queues.yaml: document 2 (ClusterQueue a): spec.queueingStrategy: "
        "StrictFIFO is left out: a job that waits for quota does not hold back younger ones",
        "scenario: nodes: made up, large enough for all quotas, because Kueue has no nodes; put in your own",
    ]


def test_printed_scenario_can_be_decided(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(run("scenario", "from-kueue", folder).stdout)
    result = run("decide", path)
    assert result.exit_code == 0
    assert "h200/0" in result.stdout


def test_scenario_is_written_to_a_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    result = run("scenario", "from-kueue", folder, "--output", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert reading.read(path.read_text()).jobs[0].id == "x"


def test_one_file_is_enough(folder: Path) -> None:
    assert yaml.safe_load(run("scenario", "from-kueue", folder / "queues.yaml").stdout)["tenants"][0]["name"] == "a"


def test_another_resource_counts_as_gpus(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(manifest(queue("a", group({"vm": {"amd.com/gpu": 4, GPU: 1}}))))
    found = yaml.safe_load(run("scenario", "from-kueue", path, "--gpu-resource", "amd.com/gpu").stdout)
    assert found["tenants"][0]["quota"] == {"vm": {"nominal": 4}}


def test_wrong_manifest_exits_two_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "queues.yaml").write_text(manifest(queue("a", group({"h200": {GPU: -4}}))))
    result = run("scenario", "from-kueue", folder, "--output", tmp_path / "s.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    path = "spec.resourceGroups[0].flavors[0].resources[0].nominalQuota"
    assert result.stderr == f"{folder}/queues.yaml: document 1 (ClusterQueue a): {path}: must be 0 or more, not -4\n"
    assert not (tmp_path / "s.yaml").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("gone", None, "No such file or directory", id="missing folder"),
        pytest.param("empty", {}, "holds no file with .yaml, .yml, .json", id="no manifest"),
        pytest.param("binary", {"a.yaml": b"\xff"}, "is not UTF-8 at byte 0", id="not text"),
    ],
)
def test_folder_that_cannot_be_read_exits_two(name: str, content: dict[str, bytes] | None, message: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    if content is not None:
        folder.mkdir()
        for file, data in content.items():
            (folder / file).write_bytes(data)
    result = run("scenario", "from-kueue", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{folder / next(iter(content)) if content else folder}: {message}\n"


def test_output_that_cannot_be_written_exits_two(folder: Path) -> None:
    result = run("scenario", "from-kueue", folder, "--output", folder)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"{folder}: Is a directory"
