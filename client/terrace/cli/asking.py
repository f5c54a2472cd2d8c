"""What a job asks for, as options of `submit` and `estimate` and as a job file, put together.

Owns the options' names, the strict reading of job files, and the rule that options win: an option replaces the file's value, `--env` adds
to the file's. Paths in a file are relative to the file. Does not own the limits of single fields (terrace/models/jobs.py) or packing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from terrace import units
from terrace.models.jobs import REQUIREMENTS_LENGTH_MAXIMUM, JobSpec
from terrace.sdk.errors import InputError

FILE_BYTES_MAXIMUM = 1 << 20
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
    limit: Annotated[str | None, typer.Option(metavar="DURATION", help="Time limit, such as 90s, 5m or 2h. (default: the tier's)")] = None
    tier: Annotated[str | None, typer.Option(help="Bundle of limits and terms. (default: standard)")] = None
    priority: Annotated[int | None, typer.Option(help="Larger is more urgent, within the tenant. (default: 0)")] = None
    env: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Environment variable of the job; repeat for more.")] = None
    requirements: Annotated[Path | None, typer.Option(metavar="FILE", help="A requirements.txt to install before the job starts.")] = None
    workdir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to send; .gitignore and .terraceignore count. (default: the current one)")
    ] = None
    no_workdir: Annotated[bool, typer.Option("--no-workdir", help="Send no directory.")] = False
    attempts: Annotated[int | None, typer.Option(help="How often the job may be tried. (default: 3)")] = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked job and the directory to send with it."""

    spec: JobSpec
    working_directory: Path | None


def asked(options: JobOptions) -> Asked:
    """Return what file and options ask for together; InputError or pydantic's ValidationError names the field that cannot be."""
    fields = _from_file(options.file) if options.file is not None else {}
    environment = fields.get("environment", {}) | _environment(options.env or [])
    given = _from_options(options)
    workdir = _workdir(options, fields.pop("workdir", None))
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
        "limit_seconds": None if options.limit is None else units.duration_seconds("limit", options.limit),
        "tier": options.tier,
        "priority": options.priority,
        "requirements": None if options.requirements is None else _requirements("requirements", options.requirements),
        "maximum_attempts": options.attempts,
    }


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


def _requirements(field: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(field, f"{path}: {error.strerror if isinstance(error, OSError) else 'is not UTF-8'}") from error
    if len(text) > REQUIREMENTS_LENGTH_MAXIMUM:
        raise InputError(field, f"{path}: has {len(text)} characters", limit=REQUIREMENTS_LENGTH_MAXIMUM)
    return text


class _StrictLoader(yaml.SafeLoader):
    """YAML without keys that stand twice and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not taken", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _from_file(path: Path) -> dict[str, Any]:
    """Return the fields of a job file as those of `JobSpec`, and `workdir`."""
    try:
        if path.stat().st_size > FILE_BYTES_MAXIMUM:
            raise InputError("file", f"{path}: is larger than {FILE_BYTES_MAXIMUM} bytes", limit=FILE_BYTES_MAXIMUM)
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  a SafeLoader that refuses more
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("file", f"{path}: {error.strerror if isinstance(error, OSError) else 'is not UTF-8'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("file", f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise InputError("file", f"{path}: must hold fields such as `gpus: 1`")
    unknown = [name for name in content if name not in FILE_FIELDS]
    if unknown:
        raise InputError(str(unknown[0]), f"{path}: is not a field of a job file", limit=sorted(FILE_FIELDS))
    fields = {}
    for name, value in content.items():
        target, read = FILE_FIELDS[name]
        fields[target] = read(name, value, path.parent)
    return fields


Reader = Callable[[str, Any, Path], Any]


def _as_it_is(kind: type, words: str) -> Reader:
    def read(field: str, value: Any, _: Path) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(field, f"must be {words}, not {value!r}")
        return value

    return read


def _amount(read_text: Callable[[str, str], int]) -> Reader:
    def read(field: str, value: Any, _: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(field, f"{value!r} is not an amount")
        return read_text(field, str(value))

    return read


def _command(field: str, value: Any, _: Path) -> list[str]:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise InputError(field, f"cannot be split into words: {error}") from error
    return _texts(field, value, _)


def _texts(field: str, value: Any, _: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in value):
        raise InputError(field, f"must be a list of texts, not {value!r}")
    return [str(item) for item in value]


def _flavors(field: str, value: Any, folder: Path) -> list[str]:
    return [value] if isinstance(value, str) else _texts(field, value, folder)


def _variables(field: str, value: Any, _: Path) -> dict[str, str]:
    is_flat = isinstance(value, dict) and all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in value.values())
    if not is_flat:
        raise InputError(field, f"must be names with texts or numbers (quote true, false and null), not {value!r}")
    return {str(name): str(item) for name, item in value.items()}


def _path_of_requirements(field: str, value: Any, folder: Path) -> str:
    if not isinstance(value, str):
        raise InputError(field, f"must be the path of a file, not {value!r}")
    return _requirements(field, folder / value)


def _directory(field: str, value: Any, folder: Path) -> Path | bool:
    if value is False:
        return False
    if not isinstance(value, str):
        raise InputError(field, f"must be the path of a directory, or false for none, not {value!r}")
    return folder / value


_TEXT = _as_it_is(str, "text")
_INTEGER = _as_it_is(int, "an integer")

FILE_FIELDS: dict[str, tuple[str, Reader]] = {
    "command": ("entrypoint", _command),
    "name": ("name", _TEXT),
    "project": ("project", _TEXT),
    "gpus": ("gpus", _INTEGER),
    "replicas": ("replicas", _INTEGER),
    "flavors": ("flavors", _flavors),
    "cpus": ("cpu_milli", _amount(units.cpu_milli)),
    "memory": ("memory_bytes", _amount(units.memory_bytes)),
    "limit": ("limit_seconds", _amount(units.duration_seconds)),
    "tier": ("tier", _TEXT),
    "priority": ("priority", _INTEGER),
    "env": ("environment", _variables),
    "requirements": ("requirements", _path_of_requirements),
    "workdir": ("workdir", _directory),
    "attempts": ("maximum_attempts", _INTEGER),
}
