"""What a job asks for, as options of `submit` and `estimate` and as a job file, put together.

Owns the options' names, and the rule that options win: an option replaces the file's value, `--env` adds to the file's. Does not own the
reading of job files (job_file.py), the limits of single fields (terrace/models/jobs.py) or packing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from terrace import units
from terrace.models.jobs import REQUIREMENTS_LENGTH_MAXIMUM, JobSpec, Within
from terrace.sdk.errors import InputError

WORKDIR = "workdir"  # not a field of JobSpec: what it names is packed
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class JobOptions:
    """The options of a job. What is None was not given."""

    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="What to run, after `--`.")] = None
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A job file (YAML); options win over it.")] = None
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None
    project: Annotated[str | None, typer.Option(help="Project that is charged. (default: default)")] = None
    gpus: Annotated[int | None, typer.Option(help="Whole GPUs per replica; 0 needs --cpus. (default: 1)")] = None
    replicas: Annotated[int | None, typer.Option(help="Identical members, started together or not at all. (default: 1)")] = None
    flavor: Annotated[
        list[str] | None, typer.Option(help="Kind of GPU; repeat in order of preference. (default: any that the tenant has quota for)")
    ] = None
    cpus: Annotated[str | None, typer.Option(metavar="N", help="CPUs per replica, such as 4 or 0.5.")] = None
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory per replica, such as 4GiB.")] = None
    site: Annotated[list[str] | None, typer.Option(help="Run on this site; repeat to allow several. (default: any)")] = None
    deny_site: Annotated[list[str] | None, typer.Option(help="Never run on this site; repeat for more.")] = None
    prefer_site: Annotated[list[str] | None, typer.Option(help="Try this site first; repeat in order of preference.")] = None
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Run on nodes with this label only; repeat for more.")] = None
    tolerate: Annotated[list[str] | None, typer.Option(metavar="TAINT", help="Run on nodes with this taint too; repeat for more.")] = None
    within: Annotated[Within | None, typer.Option(help="How close together all replicas must stand. (default: site)")] = None
    limit: Annotated[str | None, typer.Option(metavar="DURATION", help="Time limit, such as 90s, 5m or 2h. (default: the tier's)")] = None
    tier: Annotated[str | None, typer.Option(help="Bundle of limits and terms. (default: standard)")] = None
    priority: Annotated[int | None, typer.Option(help="Larger is more urgent, within the tenant. (default: 0)")] = None
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Environment variable of the job; repeat for more.")] = None
    requirements: Annotated[Path | None, typer.Option(metavar="FILE", help="A requirements.txt to install before the job starts.")] = None
    workdir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to send; .gitignore and .terraceignore count. (default: the current one)")
    ] = None
    no_workdir: Annotated[bool, typer.Option("--no-workdir", help="Send no directory.")] = False
    attempts: Annotated[
        int | None,
        typer.Option(help="How often it may be tried when the platform fails it; being stopped for others does not count. (default: 3)"),
    ] = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked job and the directory to send with it."""

    spec: JobSpec
    working_directory: Path | None


def asked(options: JobOptions, *, is_sent: bool = True) -> Asked:
    """Return what file and options ask for together; InputError or pydantic's ValidationError names the field that cannot be.

    Where nothing is sent (an estimate), no directory is looked at.
    """
    fields = _from_file(options.file) if options.file is not None else {}
    environment = fields.get("environment", {}) | _environment(options.env or [])
    given = _from_options(options)
    of_file = fields.pop(WORKDIR, None)
    workdir = _workdir(options, of_file) if is_sent else None
    fields |= {name: value for name, value in given.items() if value is not None}
    if environment:
        fields["environment"] = environment
    if not fields.get("entrypoint"):
        raise InputError("command", "there is none; write it after `--`, as in: terrace submit --gpus 1 -- python train.py")
    return Asked(JobSpec.model_validate(fields), workdir)


def _from_options(options: JobOptions) -> dict[str, Any]:
    return {
        "entrypoint": options.command or None,
        "name": options.name,
        "project": options.project,
        "gpus": options.gpus,
        "replicas": options.replicas,
        "flavors": options.flavor or None,
        "cpu_milli": None if options.cpus is None else units.cpu_milli("cpus", options.cpus),
        "memory_bytes": None if options.memory is None else units.memory_bytes("memory", options.memory),
        "sites": options.site or None,
        "deny_sites": options.deny_site or None,
        "prefer_sites": options.prefer_site or None,
        "node_labels": _labels(options.label or []) or None,
        "tolerates": options.tolerate or None,
        "within": None if options.within is None else options.within.value,
        "limit_seconds": None if options.limit is None else units.duration_seconds("limit", options.limit),
        "tier": options.tier,
        "priority": options.priority,
        "requirements": None if options.requirements is None else requirements("requirements", options.requirements),
        "maximum_attempts": options.attempts,
    }


def _labels(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError("label", f"{pair!r} is not of the form NAME=VALUE")
        found[name] = value
    return found


def _environment(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _ENVIRONMENT_NAME.fullmatch(name):
            raise InputError("env", f"{pair!r} is not of the form NAME=VALUE")
        found[name] = value
    return found


def _workdir(options: JobOptions, of_file: Path | bool | None) -> Path | None:
    if options.no_workdir and options.workdir is not None:
        raise InputError("workdir", "--workdir and --no-workdir exclude each other")
    if options.no_workdir:
        return None
    if options.workdir is not None:
        return options.workdir
    if of_file is False:
        return None
    if isinstance(of_file, Path):
        return of_file
    current = Path.cwd()
    if current in (Path.home(), Path(current.anchor)):
        raise InputError("workdir", f"{current} is sent only when it is named: use --workdir {current}, or --no-workdir")
    return current


def requirements(field: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(field, f"{path}: {error.strerror if isinstance(error, OSError) else 'is not UTF-8'}") from error
    if len(text) > REQUIREMENTS_LENGTH_MAXIMUM:
        raise InputError(field, f"{path}: has {len(text)} characters", limit=REQUIREMENTS_LENGTH_MAXIMUM)
    return text


def _from_file(path: Path) -> dict[str, Any]:
    from terrace.cli import job_file  # most submits have none, and reading YAML takes a tenth of a second to load

    return job_file.read(path)
