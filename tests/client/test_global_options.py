"""Global options stand anywhere, the nearest to the end wins, and a form that a command has not is refused before anything happens."""

from __future__ import annotations

import pytest

from tests.client.command import Terrace
from tests.client.service import Service


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "json", "ops", "tenant", "list"],
        ["ops", "--format", "json", "tenant", "list"],
        ["ops", "tenant", "--format", "json", "list"],
        ["ops", "tenant", "list", "--format", "json"],
        ["--format=table", "ops", "-q", "tenant", "list", "--format=json"],
        ["-q", "ops", "tenant", "list", "--format", "json"],
    ],
)
def test_the_form_may_be_named_anywhere(operator: Terrace, service: Service, arguments: list[str]) -> None:
    service.operator.create_tenant("acme")
    assert [tenant["name"] for tenant in operator.ok(*arguments).json] == ["acme"]


@pytest.mark.parametrize(
    "arguments", [["-q", "jobs"], ["jobs", "--quiet"], ["jobs", "--format", "quiet"], ["--format", "json", "jobs", "-q"]]
)
def test_quiet_may_be_said_anywhere_and_in_both_ways(ada: Terrace, arguments: list[str]) -> None:
    job_id = ada.ok("-q", "submit", "--no-workdir", "--", "true").out
    assert ada.ok(*arguments).out == job_id


def test_the_address_may_be_named_anywhere(ada: Terrace, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_URL", "http://127.0.0.1:9")
    assert ada.ok("--url", service.url, "whoami").out == ada.ok("whoami", "--url", service.url).out
    assert ada.ok("--url", "http://127.0.0.1:9", "whoami", "--url", service.url).code == 0


def test_options_of_the_job_are_the_jobs(ada: Terrace) -> None:
    job = ada.ok("submit", "--format", "json", "--no-workdir", "--", "python", "-q", "--format", "table", "--help").json
    assert job["entrypoint"] == ["python", "-q", "--format", "table", "--help"]


def test_quiet_and_another_form_in_one_place_exclude_each_other(ada: Terrace) -> None:
    ended = ada("jobs", "-q", "--format", "json")
    assert (ended.code, ended.err) == (2, "terrace: invalid_input: quiet: -q and --format json exclude each other\n")


def test_csv_is_refused_where_there_is_none_and_nothing_is_submitted(ada: Terrace) -> None:
    ended = ada("submit", "--format", "csv", "--no-workdir", "--", "true")
    assert ended.err == "terrace: invalid_input: format: csv is not a form of `terrace submit` (limit: table, json, quiet)\n"
    assert ended.code == 2
    assert ada.ok("-q", "jobs").out == ""


def test_the_version_is_told_without_a_service(terrace_command: Terrace) -> None:
    assert terrace_command.ok("--version").out.startswith("terrace 0.")


@pytest.mark.parametrize("arguments", [[], ["ops"], ["ops", "node"]])
def test_without_a_command_the_help_is_shown_and_nothing_done(terrace_command: Terrace, arguments: list[str]) -> None:
    ended = terrace_command(*arguments)
    assert ended.code == 2
    assert "Usage: " in ended.out
    assert ended.err == ""
