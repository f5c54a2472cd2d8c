"""The `terrace` command put together: its groups, its global options, and the one place where its exit code is decided.

Owns what stands outside every command: the version, broken pipes, terminals that cannot print a character. `run` never raises and never
shows a traceback. Does not own commands or the meaning of exit codes (exits.py).
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from terrace.cli import account_commands, exits, job_commands, ops_commands, session
from terrace.cli.exits import ExitCode

HELP = "Submit training jobs to Terrace, follow them, and see what they cost."
EPILOG = "Global options may stand before or after the command. Exit codes: docs/cli.md."


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from terrace.sdk.version import client_version

        typer.echo(f"terrace {client_version()}")
        raise typer.Exit


VersionOption = Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_show_version)]


def make() -> typer.Typer:
    """Return the command."""
    app = typer.Typer(name="terrace", no_args_is_help=True, help=HELP, epilog=EPILOG, pretty_exceptions_enable=False)
    version = inspect.Parameter("is_version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VersionOption)
    session.group(app, version)
    job_commands.register(app)
    account_commands.register(app)
    ops_commands.register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = make()(args=None if arguments is None else list(arguments), prog_name="terrace", standalone_mode=False)
        sys.stdout.flush()
    except (session.ReaderLeftError, BrokenPipeError):
        return _broken_pipe()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last line of defence: whatever it is becomes one line and a code
        return exits.explain(error)
    return status if isinstance(status, int) else ExitCode.OK


def _broken_pipe() -> int:
    """Let the rest of the output go nowhere: whoever read it has enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.BROKEN_PIPE
