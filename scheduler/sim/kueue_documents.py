"""Kubernetes manifests as documents whose every field is either read or named as left out.

Owns YAML (streams, lists, configuration inside a ConfigMap), where a field stands, and the report. Does not own what a field
means (kueue_objects.py, kueue_workloads.py). `Fields` is one mapping of a manifest: used in a `with` block, it names in the
end what nobody asked for, so that no field can be lost in silence. A manifest that Kubernetes itself would refuse is a `KueueError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import yaml

from scheduler.sim import kueue_quantity, nesting
from scheduler.sim.problems import path_of

VALUES_MAXIMUM = 5_000_000
DEPTH_MAXIMUM = 64
NAME_LENGTH_MAXIMUM = 253
NO_COUNTERPART = "has no counterpart in a scenario"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_CONFIGURATION_GROUP = "config.kueue.x-k8s.io/"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Source:
    """Where an object stands: file, document in it, item in a list."""

    file: str
    document: int
    item: int | None = None
    title: str = ""

    def __str__(self) -> str:
        item = f", item {self.item}" if self.item is not None else ""
        return f"{self.file}: document {self.document}{item}{f' ({self.title})' if self.title else ''}"


@dataclass(frozen=True, slots=True)
class Note:
    """One field that the conversion left out or had to make up; `source` is None for what concerns the whole scenario."""

    source: Source | None
    path: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(str(part) for part in (self.source or "scenario", self.path, self.reason) if part)


class KueueError(Exception):
    """The manifests say something that Kubernetes or Kueue would refuse."""

    def __init__(self, source: Source | None, path: str, message: str) -> None:
        super().__init__(str(Note(source, path, message)))


@dataclass(slots=True)
class Fields:
    """One mapping of a manifest. Each reader returns None where the field is absent, null or, for texts, empty."""

    values: Mapping[str, Any]
    source: Source
    path: tuple[str | int, ...]
    notes: list[Note]
    _read: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            for key in self.values:
                self.leave_out(key)

    def leave_out(self, key: str, reason: str = NO_COUNTERPART) -> None:
        """Name a field as left out, unless it is read already, absent or empty."""
        if key not in self._read and self.values.get(key) not in (None, "", {}, []):
            self.note(key, reason)
        self._read.add(key)

    def note(self, key: str, reason: str) -> None:
        """Add to the report what became of a field."""
        self._read.add(key)
        self.notes.append(Note(self.source, path_of([*self.path, key]), reason))

    def ignore(self, *keys: str) -> None:
        """Pass over fields that say nothing about quotas or jobs."""
        self._read.update(keys)

    def error(self, key: str, message: str) -> KueueError:
        """Return the error that names a field of this mapping."""
        return KueueError(self.source, path_of([*self.path, key]), message)

    def has(self, key: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.values.get(key) is not None

    def _value(self, key: str, kind: type, what: str) -> Any:
        self._read.add(key)
        value = self.values.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise self.error(key, f"must be {what}, not {type(value).__name__}")
        return value

    def text(self, key: str) -> str | None:
        """Return a text."""
        found: str | None = self._value(key, str, "a text")
        return found or None

    def name(self, key: str) -> str | None:
        """Return the name of an object."""
        found = self.text(key)
        if found is not None and (len(found) > NAME_LENGTH_MAXIMUM or not _NAME.fullmatch(found)):
            raise self.error(key, f"must be a name of lower-case letters, digits, dots and hyphens, not {found[:80]!r}")
        return found

    def choice(self, key: str, choices: Mapping[str, str], default: str) -> str:
        """Return what one of the allowed words stands for."""
        found = self.text(key)
        if found is None:
            return default
        if found not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}, not {found[:80]!r}")
        return choices[found]

    def integer(self, key: str, *, minimum: int = -(2**31), maximum: int = 2**31 - 1) -> int | None:
        """Return an integer within bounds."""
        found: int | None = self._value(key, int, "an integer")
        if found is not None and not minimum <= found <= maximum:
            raise self.error(key, f"must be between {minimum} and {maximum}, not {found}")
        return found

    def flag(self, key: str) -> bool | None:
        """Return true or false."""
        found: bool | None = self._value(key, bool, "true or false")
        return found

    def quantity(self, key: str) -> Fraction | None:
        """Return a quantity of zero or more."""
        self._read.add(key)
        if self.values.get(key) is None:
            return None
        try:
            found = kueue_quantity.parse(self.values[key])
        except ValueError as error:
            raise self.error(key, str(error)) from None
        if found < 0:
            raise self.error(key, f"must be 0 or more, not {self.values[key]}")
        return found

    def required(self, key: str) -> Any:
        """Return the value of a field that must be there, unread."""
        if self.values.get(key) in (None, ""):
            raise self.error(key, "is required")
        return self.values[key]

    def mapping(self, key: str) -> Fields:
        """Return a mapping, empty where it is absent."""
        value = self._value(key, dict, "a mapping")
        return Fields(_with_text_keys(value or {}, self, key), self.source, (*self.path, key), self.notes)

    def items(self, key: str) -> list[Fields]:
        """Return a list of mappings."""
        found = []
        for at, value in enumerate(self._value(key, list, "a list") or []):
            if not isinstance(value, dict):
                raise KueueError(self.source, path_of([*self.path, key, at]), f"must be a mapping, not {type(value).__name__}")
            found.append(Fields(_with_text_keys(value, self, key), self.source, (*self.path, key, at), self.notes))
        return found

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        found = self._value(key, list, "a list") or []
        if not all(isinstance(value, str) for value in found):
            raise self.error(key, "must be a list of texts")
        return list(found)

    def quantities(self, key: str) -> dict[str, Fraction]:
        """Return a mapping of names to quantities."""
        inner = self.mapping(key)
        return {name: inner.quantity(name) or Fraction(0) for name in inner.values}

    def labels(self, key: str) -> dict[str, str]:
        """Return a mapping of texts to texts."""
        inner = self.mapping(key)
        return {name: inner.text(name) or "" for name in inner.values}


def _with_text_keys(value: dict[Any, Any], fields: Fields, key: str) -> dict[str, Any]:
    for name in value:
        if not isinstance(name, str):
            raise fields.error(key, f"has a key that is no text: {str(name)[:80]}")
    return value


def objects(texts: Mapping[str, str], notes: list[Note]) -> Iterator[tuple[str, str, Fields]]:
    """Yield (group and version, kind, fields) of each object in the files, in their order, lists and ConfigMaps opened."""
    for file, text in texts.items():
        for document, content in enumerate(_documents(file, text), start=1):
            if content is not None:
                yield from _opened(content, Source(file, document), notes)


def _opened(content: Any, source: Source, notes: list[Note], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, str, Fields]]:
    if not isinstance(content, dict):
        raise KueueError(source, "", f"must be a mapping with apiVersion and kind, not {type(content).__name__}")
    outer = Fields(_with_text_keys(content, Fields({}, source, path, notes), ""), source, path, notes)
    version, kind = outer.text("apiVersion"), outer.text("kind")
    if version is None or kind is None:
        raise outer.error("kind" if kind is None else "apiVersion", "is required")
    if kind.endswith("List") and "items" in content:
        for item, inner in enumerate(outer.items("items"), start=1):
            yield from _opened(inner.values, Source(source.file, source.document, item), notes)
        return
    named = Source(source.file, source.document, source.item, source.title or _title(kind, content))
    if kind == "ConfigMap":
        if path:
            raise outer.error("kind", "a ConfigMap inside a ConfigMap is no configuration")
        yield from _configuration(Fields(content, named, path, notes))
        return
    fields = Fields(content, named, path, notes)
    fields.ignore("apiVersion", "kind")
    yield version, kind, fields


def _configuration(config_map: Fields) -> Iterator[tuple[str, str, Fields]]:
    """Yield the Kueue configuration that a ConfigMap holds as text, as the manager's own does."""
    data = config_map.mapping("data")
    for key, text in data.values.items():
        if isinstance(text, str) and _CONFIGURATION_GROUP in text:
            for content in _documents(f"{config_map.source}: data.{key}", text):
                yield from _opened(content, config_map.source, config_map.notes, ("data", key))


def _title(kind: str, content: Mapping[str, Any]) -> str:
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{kind} {name}" if isinstance(name, str) else kind


class _Loader(_BaseLoader):  # type: ignore[misc]  # the base is chosen when PyYAML is imported
    """Loads plain values only, times as text, and refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "a mapping was announced and is none", node.start_mark)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None) if len(set(keys)) < len(keys) else None
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands twice", node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
}


def _documents(file: str, text: str) -> list[Any]:
    found: list[Any] = []
    loader = _Loader(text)
    try:
        if nesting.is_too_deep(text):
            raise KueueError(Source(file, 1), "", f"holds more than {nesting.LEVELS_MAXIMUM} levels")
        _refuse_copies(file, text)
        while loader.check_data():
            content = loader.get_data()
            _bound(content, Source(file, len(found) + 1))
            found.append(content)
    except yaml.YAMLError as error:
        where = _place(getattr(error, "problem_mark", None))
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise KueueError(Source(file, len(found) + 1), "", f"is not YAML: {where}{problem}") from None
    except (
        ValueError,
        RecursionError,
        LookupError,
        TypeError,
    ) as error:  # thousands of digits or brackets, a tag that its value does not fit
        raise KueueError(Source(file, len(found) + 1), "", f"cannot be read: {str(error)[:80]}") from None
    finally:
        loader.dispose()
    return found


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _refuse_copies(file: str, text: str) -> None:
    """Refuse aliases and merges before anything is built: each level of them can multiply what a small file stands for by ten."""
    if "*" not in text and "<<" not in text and "!!merge" not in text:
        return
    document = 0
    for event in yaml.parse(text, Loader=_BaseLoader):
        document += isinstance(event, yaml.DocumentStartEvent)
        is_merge = isinstance(event, yaml.ScalarEvent) and (event.tag == _MERGE_TAG or (event.value == "<<" and event.implicit[0]))
        if is_merge or isinstance(event, yaml.AliasEvent):
            raise KueueError(
                Source(file, document), "", f"{_place(event.start_mark)}aliases and merge keys are not read; write the values out"
            )


def _bound(content: Any, source: Source) -> None:
    """Refuse what is larger or deeper than any manifest."""
    count = 0
    stack = [(content, 1)]
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > VALUES_MAXIMUM or depth > DEPTH_MAXIMUM:
            raise KueueError(source, "", f"holds more than {VALUES_MAXIMUM} values or {DEPTH_MAXIMUM} levels")
        if isinstance(value, dict):
            stack.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            stack.extend((inner, depth + 1) for inner in value)
