"""Job files: what `terrace submit -f` reads, as YAML, strictly.

Owns the fields' names and their reading into those of `JobSpec`. Unknown fields, fields that stand twice and aliases are refused, and every
refusal names the field. Every value is taken as it is written: YAML's guesses are not asked, so 1.10 stays 1.10 and `yes` stays `yes`.
Paths in a file are relative to the file. Does not own how options and file come together (asking.py).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from terrace import units
from terrace.cli.asking import WORKDIR, requirements
from terrace.sdk.errors import InputError

FILE_BYTES_MAXIMUM = 1 << 20
NO_WORKDIR = "false"
_INTEGER = re.compile(r"[+-]?\d{1,18}")

Reader = Callable[[str, Any, Path], Any]


def read(path: Path) -> dict[str, Any]:
    """Return the fields of a job file as those of `JobSpec`, and `workdir`; InputError names the field that cannot be."""
    content = _content(path)
    unknown = [name for name in content if name not in FILE_FIELDS]
    if unknown:
        raise InputError(unknown[0], f"is not a field of a job file ({path})", limit=sorted(FILE_FIELDS))
    fields = {}
    for name, value in content.items():
        if value == "":
            raise InputError(name, f"has no value ({path})")
        target, reader = FILE_FIELDS[name]
        fields[target] = reader(name, value, path.parent)
    return fields


def _content(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILE_BYTES_MAXIMUM:
            raise InputError("file", f"{path} is larger than {FILE_BYTES_MAXIMUM} bytes", limit=FILE_BYTES_MAXIMUM)
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  a BaseLoader makes nothing but text
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("file", f"{path}: {error.strerror if isinstance(error, OSError) else 'is not UTF-8'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("file", f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError("file", f"{path} must hold fields such as `gpus: 1`")
    return content


class _StrictLoader(yaml.BaseLoader):
    """YAML whose values are all text, without keys that stand twice and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not taken", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse keys that are no text, and one that stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name must be text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _text(field: str, value: Any, _: Path) -> str:
    if not isinstance(value, str):
        raise InputError(field, f"must be one text, not {_kind(value)}")
    return value


def _integer(field: str, value: Any, folder: Path) -> int:
    text = _text(field, value, folder)
    if not _INTEGER.fullmatch(text):
        raise InputError(field, f"{text!r} is not an integer")
    return int(text)


def _amount(read_text: Callable[[str, str], int]) -> Reader:
    return lambda field, value, folder: read_text(field, _text(field, value, folder))


def _command(field: str, value: Any, folder: Path) -> list[str]:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise InputError(field, f"cannot be split into words: {error}") from error
    return _texts(field, value, folder)


def _texts(field: str, value: Any, _: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(field, f"must be a list of texts, not {_kind(value)}")
    return value


def _names(field: str, value: Any, folder: Path) -> list[str]:
    return [value] if isinstance(value, str) else _texts(field, value, folder)


def _variables(field: str, value: Any, _: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InputError(field, f"must be names with texts, not {_kind(value)}")
    return value


def _requirements(field: str, value: Any, folder: Path) -> str:
    return requirements(field, folder / _text(field, value, folder))


def _directory(field: str, value: Any, folder: Path) -> Path | bool:
    text = _text(field, value, folder)
    return False if text == NO_WORKDIR else folder / text


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list" if all(isinstance(item, str) for item in value) else "a list with lists or names in it"
    return "names with lists or names in them" if isinstance(value, dict) else f"the text {value!r}"


FILE_FIELDS: dict[str, tuple[str, Reader]] = {
    "command": ("entrypoint", _command),
    "name": ("name", _text),
    "project": ("project", _text),
    "gpus": ("gpus", _integer),
    "replicas": ("replicas", _integer),
    "flavors": ("flavors", _names),
    "cpus": ("cpu_milli", _amount(units.cpu_milli)),
    "memory": ("memory_bytes", _amount(units.memory_bytes)),
    "sites": ("sites", _names),
    "deny_sites": ("deny_sites", _names),
    "prefer_sites": ("prefer_sites", _names),
    "node_labels": ("node_labels", _variables),
    "tolerates": ("tolerates", _names),
    "within": ("within", _text),
    "limit": ("limit_seconds", _amount(units.duration_seconds)),
    "tier": ("tier", _text),
    "priority": ("priority", _integer),
    "env": ("environment", _variables),
    "requirements": ("requirements", _requirements),
    "workdir": (WORKDIR, _directory),
    "attempts": ("maximum_attempts", _integer),
}
