"""Who one is, and what one's tenant may hold, has held and pays: login, whoami, quota, usage, flavors.

`login` is the only command that writes a key to disk: it reads it without echo, asks the service whose it is, and only then replaces the
file. Does not own the file's format (sdk/config.py).
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated

import typer

from terrace.cli import moments
from terrace.cli.job_commands import Tenant
from terrace.cli.moments import Direction
from terrace.cli.session import FORMS, Format, Session, command
from terrace.sdk import config
from terrace.sdk.errors import InputError

DEFAULT_GROUPS = "tenant,project,flavor"
_WINNING_VARIABLES = ("TERRACE_API_KEY", "TERRACE_URL")


def register(app: typer.Typer) -> None:
    """Add the commands to the `terrace` command."""
    panel = "Account"
    command(app, "login", panel=panel)(login)
    command(app, "logout", panel=panel)(logout)
    command(app, "whoami", panel=panel)(whoami)
    command(app, "quota", panel=panel)(quota)
    command(app, "usage", panel=panel, forms=(*FORMS, Format.CSV))(usage)
    command(app, "flavors", panel=panel)(flavors)


def login(session: Session) -> None:
    """Keep an API key on this machine: asks for it, or reads one line of standard input."""
    from terrace.sdk.client import Client

    key = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise InputError("key", "is empty; paste the key that `terrace ops key create` printed")
    resolved = config.resolve(session.url, key)
    with Client(resolved.url, resolved.key) as client:
        identity = client.me()
    config.write(resolved, config.path())
    session.output.identity(identity, resolved.url)
    for name in _WINNING_VARIABLES:
        if os.environ.get(name):
            sys.stderr.write(f"terrace: note: {name} is set and wins over this login; unset it\n")


def logout(session: Session) -> None:
    """Remove the key from this machine. The key itself goes on working: `terrace ops key revoke` ends it."""
    file = config.path()
    config.forget(file)
    session.output.logged_out(str(file))


def whoami(session: Session) -> None:
    """Say who the key speaks for."""
    session.output.identity(session.client.me(), session.client.url)


def quota(session: Session, tenant: Tenant = None) -> None:
    """Show what may be held at once, what is held, and what is queued."""
    session.output.quotas(session.client.quota(tenant))


def usage(
    session: Session,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Start, such as 2026-11-01, 2026-11-01T10:00Z or 7d. (default: 31 days before --to)"),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, not included. (default: now)")] = None,
    by: Annotated[str, typer.Option(metavar="GROUPS", help="Any of tenant, project, user, flavor, job, with commas.")] = DEFAULT_GROUPS,
    tenant: Tenant = None,
) -> None:
    """Report what ended leases held and cost, with the proof against the leases."""
    window = moments.read("from", start, Direction.BACK), moments.read("to", end, Direction.BACK)
    groups = [name.strip() for name in by.split(",") if name.strip()]
    if session.form is Format.CSV:
        sys.stdout.write(session.client.usage_csv(start=window[0], end=window[1], by=groups, tenant=tenant))
        return
    session.output.usage(session.client.usage(start=window[0], end=window[1], by=groups, tenant=tenant))


def flavors(session: Session) -> None:
    """List the kinds of GPU that can be asked for, with their prices now."""
    session.output.flavors(session.client.flavors())
