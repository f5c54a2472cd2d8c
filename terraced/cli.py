"""The `terraced` command: run the service or one of its processes, and ask the decision core questions.

Exit codes: 0 done; 1 it ran and failed; 2 bad usage or a setting that cannot work (one line on stderr names it);
3 the scenario asks for something not supported yet. Options win over `TERRACED_*` environment variables.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from terraced import bootstrap, parts, preflight, processes, scenario_commands, serving, up
from terraced.settings import Settings, unknown_variables

EXIT_USAGE = 2

HELP = "Run Terrace, and ask its scheduler what it would do."
app = typer.Typer(name="terraced", no_args_is_help=True, help=HELP, pretty_exceptions_enable=False)
scenario_commands.register(app)

StateDir = Annotated[Path | None, typer.Option(help="Directory of the database, keys, archives and leases.")]
Port = Annotated[int | None, typer.Option(help="Port of the API.")]
DatabaseUrl = Annotated[str | None, typer.Option(help="sqlite:////path or postgresql://…; default: SQLite in the state directory.")]
JobPython = Annotated[Path | None, typer.Option(help="Interpreter of the job environment, with Ray.")]
Isolation = Annotated[str | None, typer.Option(help="auto, namespaces or none.")]


def _settings(**options: Any) -> Settings:
    unknown = unknown_variables(os.environ)
    if unknown:
        _refuse(unknown[0])
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, parts.PartError):  # it names the whole setting already
            _refuse(str(cause))
        _refuse(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


def _refuse(message: str) -> NoReturn:
    typer.echo(f"terraced: {message}", err=True)
    raise typer.Exit(EXIT_USAGE)


def _serve(process: Callable[[Settings], None], settings: Settings) -> None:
    try:
        process(settings)
    except serving.START_ERRORS as error:
        _refuse(" ".join(str(error).split()))


@app.command(name="up")
def up_command(
    state_dir: StateDir = None,
    port: Port = None,
    database_url: DatabaseUrl = None,
    job_python: JobPython = None,
    isolation: Isolation = None,
    simulated_devices: Annotated[int | None, typer.Option(help="Devices of the simulated set when there is no driver.")] = None,
    agent_metrics_port: Annotated[int | None, typer.Option(help="Port of the agent's /metrics; 0 = any.")] = None,
    scheduler_metrics_port: Annotated[int | None, typer.Option(help="Port of the scheduler's /metrics; 0 = any.")] = None,
) -> None:
    """Run the whole service on this machine, in the foreground."""
    settings = _settings(
        state_dir=state_dir,
        port=port,
        database_url=database_url,
        job_python=job_python,
        isolation=isolation,
        simulated_devices=simulated_devices,
        agent_metrics_port=agent_metrics_port,
        scheduler_metrics_port=scheduler_metrics_port,
    )
    try:
        status = asyncio.run(up.run(settings, Console()))
    except preflight.NotReadyError as error:
        _refuse(str(error))
    raise typer.Exit(status)


@app.command()
def init(
    state_dir: StateDir = None,
    database_url: DatabaseUrl = None,
    no_migrate: Annotated[
        bool, typer.Option("--no-migrate", help="Refuse a database that `terraced migrate` has not brought up to date.")
    ] = False,
) -> None:
    """Prepare the database and, where nobody can operate the service, write the first operator's key into the state directory."""
    settings = _settings(state_dir=state_dir, database_url=database_url)
    try:
        preflight.prepare_state_dir(settings.state_dir)
        is_new = bootstrap.prepare_database(settings, is_migrated=no_migrate)
    except preflight.NotReadyError as error:
        _refuse(str(error))
    typer.echo(f"The operator's key is in {settings.operator_key_path}" if is_new else "Somebody operates this service already.")


@app.command()
def migrate(database_url: DatabaseUrl = None, state_dir: StateDir = None) -> None:
    """Bring the database's schema to this release, then end."""
    settings = _settings(database_url=database_url, state_dir=state_dir)
    try:
        if settings.database_url is None:
            preflight.prepare_state_dir(settings.state_dir)
        bootstrap.prepare_schema(settings)
    except preflight.NotReadyError as error:
        _refuse(str(error))


@app.command()
def api(port: Port = None, database_url: DatabaseUrl = None, state_dir: StateDir = None) -> None:
    """Run the API alone."""
    processes.die_with_parent()
    _serve(serving.serve_api, _settings(port=port, database_url=database_url, state_dir=state_dir))


@app.command()
def scheduler(database_url: DatabaseUrl = None, state_dir: StateDir = None) -> None:
    """Run the scheduler and billing; several may stand by, one leads."""
    processes.die_with_parent()
    _serve(serving.serve_scheduler, _settings(database_url=database_url, state_dir=state_dir))


@app.command()
def agent(
    state_dir: StateDir = None,
    job_python: JobPython = None,
    isolation: Isolation = None,
    api_url: Annotated[str | None, typer.Option(help="Where the API answers, https:// from another machine.")] = None,
) -> None:
    """Run this machine's node agent."""
    processes.die_with_parent()
    _serve(serving.serve_agent, _settings(state_dir=state_dir, job_python=job_python, isolation=isolation, api_url=api_url))


def main() -> None:
    """Run the command."""
    app()
