"""Exit codes, and what is said on standard error when a command does not do what it was asked.

Owns the one mapping from exceptions to exit codes (docs/cli.md lists them) and to lines, one per error, so that a script can read them:
`terrace: CODE: FIELD: MESSAGE (limit: LIMIT)`. Sentences may change, codes do not. A defect of ours is a line too, and
TERRACE_TRACEBACK=1 shows where.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import typer
from pydantic import ValidationError

from terrace.cli.text import printable
from terrace.models.common import Problem
from terrace.sdk import errors

TRACEBACK_VARIABLE = "TERRACE_TRACEBACK"
_LIMIT_KEYS = ("ge", "gt", "le", "lt", "max_length", "min_length", "pattern", "expected")


class ExitCode(IntEnum):
    """What the exit status of `terrace` means."""

    OK = 0
    ENDED_BADLY = 1  # the job failed, was cancelled, or had not ended in time
    INVALID = 2  # bad usage, or input that can never be accepted
    REFUSED = 3  # the input is fine, but not now or not by this key
    NOT_FOUND = 4
    UNREACHABLE = 5  # no answer, or the service itself failed
    NOT_LOGGED_IN = 6  # no key, or one that is not accepted
    DEFECT = 7  # a defect of this program
    INTERRUPTED = 130
    BROKEN_PIPE = 141


_BY_STATUS: dict[int, ExitCode] = {
    HTTPStatus.BAD_REQUEST: ExitCode.INVALID,
    HTTPStatus.UNAUTHORIZED: ExitCode.NOT_LOGGED_IN,
    HTTPStatus.NOT_FOUND: ExitCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ExitCode.INVALID,
    HTTPStatus.UNPROCESSABLE_ENTITY: ExitCode.INVALID,
}


def of_problem(problem: Problem) -> ExitCode:
    """Return the exit code of a refusal."""
    if problem.code == "not_a_problem" or problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ExitCode.UNREACHABLE
    return _BY_STATUS.get(problem.status, ExitCode.REFUSED)


def explain(error: BaseException) -> ExitCode:
    """Say on standard error what went wrong and return the exit code."""
    code, lines = _lines(error)
    for line in lines:
        sys.stderr.write(f"terrace: {printable(line)}\n")
    return code


def _lines(error: BaseException) -> tuple[ExitCode, list[str]]:
    match error:
        case errors.ApiError():
            return of_problem(error.problem), _problem_lines(error.problem)
        case errors.InputError():
            return ExitCode.INVALID, [_line("invalid_input", error.field, error.message, error.limit)]
        case ValidationError():
            return ExitCode.INVALID, [_validation_line(item) for item in error.errors(include_url=False, include_input=False)]
        case errors.NotLoggedInError():
            return ExitCode.NOT_LOGGED_IN, [f"not_logged_in: {error}"]
        case errors.ConfigError() | errors.PackingError():
            return ExitCode.INVALID, [f"{'invalid_config' if isinstance(error, errors.ConfigError) else 'cannot_pack'}: {error}"]
        case errors.WaitTimeoutError():
            return ExitCode.ENDED_BADLY, [f"wait_timeout: {error}"]
        case errors.UnreachableError():
            return ExitCode.UNREACHABLE, [f"unreachable: {error}"]
        case typer.TyperException():
            return ExitCode.INVALID, [f"usage: {line}" for line in error.format_message().splitlines() if line.strip()]
        case KeyboardInterrupt() | typer.Abort():
            return ExitCode.INTERRUPTED, ["interrupted"]
        case _:
            return ExitCode.DEFECT, _defect_lines(error)


def _problem_lines(problem: Problem) -> list[str]:
    if not problem.errors:
        return [f"{problem.code}: {problem.detail or problem.title}"]
    return [_line(problem.code, item.field, item.message, item.limit) for item in problem.errors]


def _line(code: str, field: str, message: str, limit: Any) -> str:
    text = message if message.startswith(f"{field}:") else f"{field}: {message}"
    return f"{code}: {text}" + ("" if limit is None else f" (limit: {_spoken(limit)})")


def _spoken(limit: Any) -> str:
    return ", ".join(str(item) for item in limit) if isinstance(limit, Sequence) and not isinstance(limit, str) else str(limit)


def _validation_line(error: Any) -> str:
    context = error.get("ctx", {})
    limit = next((context[key] for key in _LIMIT_KEYS if key in context), None)
    path = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else str(part))
    return _line("invalid_input", path or "input", error["msg"], limit)


def _defect_lines(error: BaseException) -> list[str]:
    lines = [f"defect: {type(error).__name__}: {error}"]
    if os.environ.get(TRACEBACK_VARIABLE):
        return [*"".join(traceback.format_exception(error)).splitlines(), *lines]
    return [*lines, f"defect: this is a defect of the terrace command; {TRACEBACK_VARIABLE}=1 shows where"]
