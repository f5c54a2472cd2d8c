"""docs/cli.md and docs/sdk.md say what is there: the reference is the command's own, job files and Python blocks are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import terrace
from terrace.cli import reference
from terrace.cli.asking import JobOptions, asked
from terrace.cli.job_file import FILE_FIELDS
from terrace.cli.session import Format
from tests.client.service import Service
from tests.support.service import REPOSITORY

CLI = (REPOSITORY / "docs/cli.md").read_text()
SDK = (REPOSITORY / "docs/sdk.md").read_text()


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, flags=re.DOTALL)


def test_the_reference_of_commands_is_as_the_command_writes_it() -> None:
    assert reference.rewritten(CLI) == CLI, "run: python -m terrace.cli.reference docs/cli.md"


def test_the_reference_names_every_option_of_every_command() -> None:
    for path, command in reference.commands():
        section = CLI.partition(f"### `{path}`\n")[2].partition("\n### ")[0]
        names = [name for parameter in reference.own_parameters(command) for name in (*parameter.opts, *parameter.secondary_opts)]
        assert [name for name in names if name.startswith("-") and f"`{name}" not in section] == [], path


def test_global_options_and_forms_are_described() -> None:
    section = CLI.partition("## Global options")[2].partition("\n## ")[0]
    assert [name for name in ("--quiet", "-q", "--url", "--version", *(f"--format {form}" for form in Format)) if name not in section] == []


def test_the_job_file_in_the_document_has_every_field_and_is_read(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "job.yaml").write_text(blocks(CLI, "yaml")[0])
    found = asked(JobOptions(file=tmp_path / "job.yaml"))
    assert found.working_directory == tmp_path
    assert found.spec.entrypoint == ["python", "train.py", "--epochs", "20"]
    assert found.spec.model_fields_set == {target for target, _ in FILE_FIELDS.values()} - {"workdir"}


def test_the_python_in_the_document_runs_against_a_service(
    service: Service, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_URL", service.url)
    monkeypatch.setenv("TERRACE_API_KEY", service.member())
    service.add_node()
    names = {"OPERATOR_KEY": service.operator_key}
    with service.machines() as machines:
        machines.output = b"hello from the job\n"
        for number, block in enumerate(blocks(SDK, "python"), start=1):
            exec(compile(block, f"docs/sdk.md, block {number}", "exec"), names)  # noqa: S102  the document is ours
    said = capsys.readouterr().out
    assert "hello from the job" in said
    assert "succeeded 0" in said
    assert "422 unknown_flavor" in said
    assert len(names["batch"]) == 3


def test_every_verb_of_the_client_stands_in_the_document() -> None:
    verbs = [name for name in dir(terrace.Client) if not name.startswith("_")]
    assert "submit" in verbs
    missing = [name for name in verbs if f".{name}(" not in SDK]
    assert missing == []
