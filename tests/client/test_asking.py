"""What a job asks for: job files are read strictly, options win over them, and a refusal names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from terrace.cli.asking import Asked, JobOptions, asked
from terrace.models.jobs import Within
from terrace.sdk.errors import InputError

WHOLE = """
command: [python, train.py, --epochs, 20, --version, 1.10]
name: digits
project: vision
gpus: 2
replicas: 3
flavors: [h200, h100]
cpus: 0.5
memory: 4GiB
sites: [hanoi, hue]
deny_sites: danang
prefer_sites: [hue]
node_labels: {disk: nvme, row: 07}
tolerates: [pilot]
within: rack
limit: 20m
tier: long
priority: -5
env: {SEED: 007, MODE: yes}
requirements: needs.txt
workdir: code
attempts: 2
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs"
    (folder / "code").mkdir(parents=True)
    (folder / "needs.txt").write_text("numpy==2.3\n")
    return folder / "job.yaml"


def ask(path: Path, text: str, **options: Any) -> Asked:
    path.write_text(text)
    return asked(JobOptions(file=path, **options))


def test_a_file_with_every_field_is_read_as_it_is_written(job_file: Path) -> None:
    found = ask(job_file, WHOLE)
    assert found.working_directory == job_file.parent / "code"
    assert found.spec.model_dump(exclude={"archive_sha256"}) == {
        "name": "digits",
        "project": "vision",
        "entrypoint": ["python", "train.py", "--epochs", "20", "--version", "1.10"],
        "replicas": 3,
        "gpus": 2,
        "flavors": ["h200", "h100"],
        "cpu_milli": 500,
        "memory_bytes": 4 << 30,
        "sites": ["hanoi", "hue"],
        "deny_sites": ["danang"],
        "prefer_sites": ["hue"],
        "node_labels": {"disk": "nvme", "row": "07"},
        "tolerates": ["pilot"],
        "within": "rack",
        "limit_seconds": 1_200,
        "tier": "long",
        "priority": -5,
        "environment": {"SEED": "007", "MODE": "yes"},
        "requirements": "numpy==2.3\n",
        "maximum_attempts": 2,
    }


def test_every_option_wins_over_the_file(job_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("scipy\n")
    options: dict[str, Any] = {
        "command": ["sh", "-c", "true"], "name": "n", "project": "p", "gpus": 1, "replicas": 1, "flavor": ["a100"], "cpus": "2",
        "memory": "1GiB", "site": ["danang"], "deny_site": ["hue"], "prefer_site": ["danang"], "label": ["disk=a=b"], "tolerate": ["old"],
        "within": Within.NODE, "limit": "90s", "tier": "short", "priority": 7, "requirements": tmp_path / "other.txt",
        "workdir": tmp_path, "attempts": 1,
    }  # fmt: skip
    found = ask(job_file, WHOLE, env=["SEED=8", "EXTRA=a=b"], **options)
    assert found.working_directory == tmp_path
    assert found.spec.model_dump(exclude={"archive_sha256"}) == {
        "name": "n", "project": "p", "entrypoint": ["sh", "-c", "true"], "replicas": 1, "gpus": 1, "flavors": ["a100"], "cpu_milli": 2_000,
        "memory_bytes": 1 << 30, "sites": ["danang"], "deny_sites": ["hue"], "prefer_sites": ["danang"], "node_labels": {"disk": "a=b"},
        "tolerates": ["old"], "within": "node", "limit_seconds": 90, "tier": "short", "priority": 7,
        "requirements": "scipy\n", "maximum_attempts": 1,
        "environment": {"SEED": "8", "MODE": "yes", "EXTRA": "a=b"},
    }  # fmt: skip


def test_a_zero_option_wins_too(job_file: Path) -> None:
    assert ask(job_file, WHOLE, gpus=0, priority=0).spec.model_dump(include={"gpus", "priority"}) == {"gpus": 0, "priority": 0}


def test_a_command_of_one_text_is_split_as_a_shell_splits_it(job_file: Path) -> None:
    assert ask(job_file, "command: python train.py --name 'two words'").spec.entrypoint == ["python", "train.py", "--name", "two words"]


def test_what_was_not_said_is_left_to_the_service(job_file: Path) -> None:
    assert ask(job_file, "command: 'true'").spec.model_dump(exclude_unset=True) == {"entrypoint": ["true"]}


REFUSED = {
    "an unknown field": ("gpu: 1", "gpu"),
    "a field that stands twice": ("gpus: 1\ngpus: 2", "file"),
    "a variable that stands twice": ("env: {A: 1, A: 2}", "file"),
    "an alias": ("name: &x a\nproject: *x", "file"),
    "no names at all": ("- gpus", "file"),
    "nothing": ("", "file"),
    "two documents": ("gpus: 1\n---\ngpus: 2", "file"),
    "broken YAML": ("gpus: [1", "file"),
    "a name that is a list": ("? [a]\n: 1", "file"),
    "a tag": ("name: !!python/object/apply:os.system ['true']", "name"),
    "an empty value": ("name:", "name"),
    "gpus that are no integer": ("gpus: 1.5", "gpus"),
    "gpus in a list": ("gpus: [1]", "gpus"),
    "a limit without a unit": ("limit: 300", "limit"),
    "memory without a unit": ("memory: 4", "memory"),
    "cpus finer than a thousandth": ("cpus: 0.0001", "cpus"),
    "a list of lists": ("command: [[python]]", "command"),
    "an unfinished quote": ('command: "python \'x"', "command"),
    "variables in a list": ("env: [A]", "env"),
    "a missing requirements file": ("requirements: absent.txt", "requirements"),
    "a workdir in a list": ("workdir: [a]", "workdir"),
    "no command": ("gpus: 1", "command"),
    "an empty command": ("command: []", "command"),
}


@pytest.mark.parametrize(("text", "field"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_is_refused_with_its_field(job_file: Path, text: str, field: str) -> None:
    with pytest.raises(InputError) as refused:
        ask(job_file, text)
    assert refused.value.field == field


@pytest.mark.parametrize(("text", "field"), [("gpus: 65", "gpus"), ("replicas: 0", "replicas"), ("project: A_B", "project")])
def test_a_value_over_its_limit_is_refused_with_its_field(job_file: Path, text: str, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ask(job_file, f"command: 'true'\n{text}")
    assert refused.value.errors()[0]["loc"] == (field,)


@pytest.mark.parametrize("content", [b"name: \xff", b"command: " + b"x" * (1 << 20)], ids=["not UTF-8", "too large"])
def test_a_file_that_cannot_be_read_is_refused(job_file: Path, content: bytes) -> None:
    job_file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        asked(JobOptions(file=job_file))
    assert refused.value.field == "file"


@pytest.mark.parametrize("pair", ["A", "=1", "1A=2", "A B=1", ""])
def test_a_variable_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(JobOptions(command=["true"], env=[pair]))
    assert refused.value.field == "env"


@pytest.mark.parametrize("pair", ["disk", "=nvme", "disk=", ""])
def test_a_label_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(JobOptions(command=["true"], label=[pair]))
    assert refused.value.field == "label"


def test_the_current_directory_is_sent_unless_it_is_said_otherwise(workdir: Path) -> None:
    assert asked(JobOptions(command=["true"])).working_directory == workdir
    assert asked(JobOptions(command=["true"], no_workdir=True)).working_directory is None
    assert asked(JobOptions(command=["true"], workdir=Path("x"))).working_directory == Path("x")


def test_a_home_directory_is_no_obstacle_where_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        asked(JobOptions(command=["true"]))
    assert asked(JobOptions(command=["true"]), is_sent=False).working_directory is None


def test_a_file_may_say_that_no_directory_is_sent(job_file: Path) -> None:
    assert ask(job_file, "command: 'true'\nworkdir: false").working_directory is None


def test_a_directory_and_none_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        asked(JobOptions(command=["true"], workdir=tmp_path, no_workdir=True))
    assert refused.value.field == "workdir"


def test_a_home_directory_is_sent_only_when_it_is_named(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workdir))
    with pytest.raises(InputError) as refused:
        asked(JobOptions(command=["true"]))
    assert refused.value.field == "workdir"
    assert asked(JobOptions(command=["true"], workdir=workdir)).working_directory == workdir


def test_requirements_over_their_limit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("x" * 65_537)
    with pytest.raises(InputError) as refused:
        asked(JobOptions(command=["true"], no_workdir=True, requirements=tmp_path / "long.txt"))
    assert (refused.value.field, refused.value.limit) == ("requirements", 65_536)
