"""Every exit code of docs/cli.md, and that an error is lines on standard error, never a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import terrace
from terrace.cli import exits
from terrace.cli.exits import ExitCode
from terrace.models.common import FieldError, Problem
from terrace.sdk import transport
from tests.client.command import Terrace
from tests.client.service import Service
from tests.support.service import REPOSITORY


def problem(status: int, code: str = "some_code") -> Problem:
    return Problem(title="title", status=status, code=code)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 6), (403, 3), (404, 4), (409, 3), (413, 2), (422, 2), (429, 3), (499, 3), (500, 5), (502, 5), (503, 5), (599, 5)],
)
def test_a_refusal_has_the_exit_code_of_its_status(status: int, code: int) -> None:
    assert exits.of_problem(problem(status)) == code


def test_another_servers_answer_is_no_answer() -> None:
    assert exits.of_problem(problem(404, "not_a_problem")) is ExitCode.UNREACHABLE


def test_success_is_0(ada: Terrace) -> None:
    assert ada("whoami").code == 0


def test_a_job_that_ended_badly_is_1(ada: Terrace) -> None:
    job_id = ada.ok("-q", "submit", "--no-workdir", "--", "true").out.strip()
    ada.ok("cancel", job_id)
    assert ada("wait", job_id).code == 1


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["jobs", "--nonsense"], ["job"], ["jobs", "--limit", "0"], ["jobs", "--state", "asleep"], ["jobs", "extra"]]
)
def test_bad_usage_is_2_and_one_line(ada: Terrace, arguments: list[str]) -> None:
    ended = ada(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(r"terrace: usage: .+\n", ended.err)


def test_a_broken_configuration_is_2(terrace_command: Terrace) -> None:
    terrace_command.config.write_text("nonsense = 1\n")
    ended = terrace_command("jobs")
    assert (ended.code, ended.err.split(":")[1].strip()) == (2, "invalid_config")


def test_a_refusal_of_the_service_is_3(ada: Terrace) -> None:
    assert ada("ops", "tenant", "list").code == 0
    assert ada("ops", "tenant", "create", "x").code == 3


def test_what_is_not_there_is_4(ada: Terrace) -> None:
    assert ada("job", "job_absent").code == 4


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "RETRY_SECONDS_MAXIMUM", 0.0)


@pytest.mark.usefixtures("_at_once")
def test_nobody_there_is_5(ada: Terrace) -> None:
    ended = ada("jobs", "--url", "http://127.0.0.1:9")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err.startswith("terrace: unreachable: http://127.0.0.1:9 does not answer: ")
    assert len(ended.err.splitlines()) == 1


def test_nobody_logged_in_is_6(terrace_command: Terrace) -> None:
    ended = terrace_command("jobs")
    assert (ended.code, ended.out) == (6, "")
    assert ended.err == "terrace: not_logged_in: key: there is none; run `terrace login`, or set TERRACE_API_KEY\n"


def test_a_key_that_is_refused_is_6(ada: Terrace, service: Service) -> None:
    ended = ada.speak_for(service.url, "key_wrong.secret")("jobs")
    assert (ended.code, ended.err.split(":")[1].strip()) == (6, "unauthenticated")


def test_a_defect_is_7_and_says_how_to_see_more(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERRACE_TRACEBACK", raising=False)
    assert exits.explain(ZeroDivisionError("oops")) == 7
    assert "Traceback" not in (said := capsys.readouterr().err)
    assert said.startswith("terrace: defect: ZeroDivisionError: oops\n")
    monkeypatch.setenv("TERRACE_TRACEBACK", "1")
    exits.explain(ZeroDivisionError("oops"))
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_every_field_error_is_a_line_with_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = problem(422, "invalid_request")
    refusal.errors = [
        FieldError(field="a", message="a: must be less", limit=3),
        FieldError(field="b[1]", message="is wrong", limit=["x", "y"]),
        FieldError(field="c", message="two\nlines \x1b[31m"),
    ]
    assert exits.explain(terrace.ApiError(refusal)) == 2
    assert capsys.readouterr().err.splitlines() == [
        "terrace: invalid_request: a: must be less (limit: 3)",
        "terrace: invalid_request: b[1]: is wrong (limit: x, y)",
        "terrace: invalid_request: c: two\\nlines \\x1b[31m",
    ]


def test_the_document_names_exactly_these_codes() -> None:
    table = re.findall(r"^\| (\d+) \| ", (REPOSITORY / "docs/cli.md").read_text(), flags=re.MULTILINE)
    assert [int(code) for code in table] == [int(code) for code in ExitCode]


def test_no_command_shows_a_traceback_for_a_broken_home(terrace_command: Terrace, service: Service, tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    ended = terrace_command("login", "--url", service.url, typed=service.operator_key)
    assert (ended.code, ended.err.split(":")[1].strip()) == (2, "invalid_config")
