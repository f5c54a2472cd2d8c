"""`terrace submit`: what is sent, what is printed, and what `--watch` shows and returns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from executors.fake import Script
from tests.client.command import Terrace
from tests.client.service import Service


def test_options_arrive_as_they_were_given(ada: Terrace) -> None:
    job = ada.ok(
        "--format", "json", "submit", "--name", "x", "--gpus", "1", "--replicas", "2", "--flavor", "h200", "--cpus", "0.5",
        "--memory", "2GiB", "--limit", "5m", "--tier", "short", "--priority", "3", "--attempts", "2", "--env", "A=b c",
        "--", "python", "train.py", "--epochs", "3", "-q",
    ).json  # fmt: skip
    wanted = {
        "name": "x", "gpus": 1, "replicas": 2, "flavors": ["h200"], "cpu_milli": 500, "memory_bytes": 2 << 30, "limit_seconds": 300,
        "tier": "short", "priority": 3, "maximum_attempts": 2, "entrypoint": ["python", "train.py", "--epochs", "3", "-q"],
        "state": "queued", "project": "default", "tenant": "acme", "user": "ada",
    }  # fmt: skip
    assert {name: job[name] for name in wanted} == wanted


def test_without_a_flavor_any_with_quota_will_do(ada: Terrace) -> None:
    assert ada.ok("submit", "--format", "json", "--", "true").json["flavors"] == ["h200"]


def test_a_job_file_is_submitted_with_options_over_it(ada: Terrace, workdir: Path) -> None:
    (workdir / "job.yaml").write_text("command: python train.py\nname: from-file\nlimit: 2m\n")
    job = ada.ok("submit", "-f", "job.yaml", "--limit", "1m", "--format", "json").json
    assert (job["name"], job["limit_seconds"], job["entrypoint"]) == ("from-file", 60, ["python", "train.py"])


def test_people_are_told_the_id_and_what_to_ask_next(ada: Terrace) -> None:
    ended = ada.ok("submit", "--limit", "5m", "--", "true")
    job_id = ended.lines[0].split()[0]
    assert ended.lines == [
        f"{job_id}  queued  1 h200, limit 5m",
        f"  terrace why {job_id}      why it waits, and until when",
        f"  terrace logs -f {job_id}  its output",
    ]


def test_the_current_directory_is_uploaded_once(ada: Terrace, workdir: Path, service: Service) -> None:
    (workdir / ".gitignore").write_text("*.bin\n")
    (workdir / "big.bin").write_text("x")
    ada.ok("submit", "--", "true")
    ada.ok("submit", "--", "true")
    assert len([path for path in (workdir.parent / "state" / "archives").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--gpus", "65", "--", "true"], "invalid_input: gpus: Input should be less than or equal to 64 (limit: 64)"),
        (["--gpus", "-1", "--", "true"], "invalid_input: gpus: Input should be greater than or equal to 0 (limit: 0)"),
        (["--replicas", "0", "--", "true"], "invalid_input: replicas: Input should be greater than or equal to 1 (limit: 1)"),
        (["--limit", "0s", "--", "true"], "invalid_input: limit: must be longer than zero (limit: 1s)"),
        (["--gpus", "0", "--", "true"], "nothing_asked_for: cpu_milli: a job with gpus 0 needs CPUs (limit: 1)"),
        (
            ["--gpus", "5", "--", "true"],
            "exceeds_maximum: gpus: 1 x 5 = 5 GPUs, but the tenant's quota could give at most 4 h200 (limit: 4)",
        ),
        (
            ["--flavor", "h300", "--", "true"],
            "unknown_flavor: flavors[0]: there is no flavor 'h300' (limit: a100, h100, h200, l40s)",
        ),
        (["--limit", "2d", "--", "true"], "limit_over_tier: limit_seconds: tier 'standard' allows at most 86400 s (limit: 86400)"),
        (["--project", "absent", "--", "true"], "unknown_project: project: there is no project 'absent' (limit: default)"),
        ([], "invalid_input: command: there is none; write it after `--`, as in: terrace submit --gpus 1 -- python train.py"),
        (["--workdir", "absent", "--", "true"], "cannot_pack: working directory: absent is not a directory"),
    ],
)
def test_what_can_never_be_is_refused_with_field_and_limit(ada: Terrace, arguments: list[str], line: str) -> None:
    ended = ada("submit", *arguments)
    assert (ended.code, ended.out, ended.err) == (2, "", f"terrace: {line}\n")
    assert ada.ok("-q", "jobs").out == ""


def test_several_errors_are_one_line_each(ada: Terrace) -> None:
    ended = ada("submit", "--gpus", "65", "--replicas", "0", "--", "true")
    assert [line.split(": ")[2] for line in ended.err.splitlines()] == ["replicas", "gpus"]


def test_watching_shows_why_it_waits_then_its_output_and_its_end(ada: Terrace, service: Service) -> None:
    service.add_node()
    service.executor.script, service.executor.output = Script(duration_ms=2_000), b"epoch 1\nepoch 2\n"
    ada.ok("submit", "--gpus", "4", "--", "true")
    service.step()
    with service.machines():
        ended = ada("submit", "--watch", "--", "true")
    job_id = ended.err.splitlines()[0]
    assert ended.code == 0
    assert ended.lines[:2] == ["epoch 1", "epoch 2"]
    assert ended.lines[2].startswith(f"{job_id}  succeeded  after ")
    assert re.match(rf"{job_id}  queued  0 s  (Its tenant holds 4 h200 of|The scheduler has not looked)", ended.err.splitlines()[1])
    assert f"{job_id}  running  " in ended.err


@pytest.mark.parametrize("form", ["table", "json", "quiet"])
def test_watching_a_job_that_fails_ends_with_1_in_every_form(ada: Terrace, service: Service, form: str) -> None:
    service.add_node()
    with service.machines() as machines:
        machines.script = Script(duration_ms=100, exit_code=3, failure_class="user_code", message="exit code 3")
        ended = ada("submit", "--watch", "--format", form, "--", "true")
    assert ended.code == 1
    assert {"table": "user_code: exit code 3", "json": '"exit_code": 3', "quiet": "job_"}[form] in ended.out


def test_watching_as_json_prints_one_document_the_job_as_it_ended(ada: Terrace, service: Service) -> None:
    service.add_node()
    with service.machines() as machines:
        machines.output = b"not in the document\n"
        job = ada.ok("submit", "--watch", "--format", "json", "--", "true").json
    assert (job["state"], job["attempt"], len(job["attempts"])) == ("succeeded", 1, 1)
