"""Reading a scenario file: text in, a validated `Scenario` out, or one line that names the path of the field.

Owns YAML and the order of checks: text, duplicate keys, fields and units (scenario.py), names and references
(references.py). Does not own whether the core can decide it (support.py). YAML is loaded without any object construction;
file size and number of values are bounded, aliases are refused, because they can multiply a small file without bound.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from scheduler.sim import references
from scheduler.sim.problems import ScenarioError, path_of
from scheduler.sim.scenario import Scenario

FILE_BYTES_MAXIMUM = 64 * 1024 * 1024
VALUES_MAXIMUM = 5_000_000
DEPTH_MAXIMUM = 32

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser, where PyYAML was built with it, is ten times faster

_MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "is required",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
}


def read(text: str) -> Scenario:
    """Return the scenario in `text`; `ScenarioError` names the first field that is wrong."""
    if len(text) > FILE_BYTES_MAXIMUM:
        raise ScenarioError("", f"the file is larger than {FILE_BYTES_MAXIMUM} bytes")
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise ScenarioError("", "the file is empty")
        _refuse_twice(root)
        content = _construct(root)
    except yaml.YAMLError as error:
        raise ScenarioError("", f"is not YAML: {_one_line(error)}") from None
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        raise _first_problem(error) from None
    references.check(scenario)
    return scenario


def _construct(root: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_twice(root: yaml.Node) -> None:
    """Refuse a key that stands twice in one mapping, an alias, and more values than allowed."""
    seen: set[int] = set()
    stack: list[tuple[yaml.Node, tuple[str | int, ...]]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        if id(node) in seen:
            raise ScenarioError(path_of(path), "aliases are not allowed")
        seen.add(id(node))
        if len(seen) > VALUES_MAXIMUM or len(path) > DEPTH_MAXIMUM:
            raise ScenarioError(path_of(path), f"more than {VALUES_MAXIMUM} values or {DEPTH_MAXIMUM} levels")
        if isinstance(node, yaml.SequenceNode):
            stack.extend((item, (*path, at)) for at, item in reversed(list(enumerate(node.value))))
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ScenarioError(path_of(path), "keys must be text")
                if key.value in keys:
                    raise ScenarioError(path_of((*path, key.value)), "stands twice")
                keys.add(key.value)
            stack.extend((value, (*path, key.value)) for key, value in reversed(node.value))


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(str(getattr(error, "problem", None) or error).split())


def _first_problem(error: ValidationError) -> ScenarioError:
    first = error.errors(include_url=False)[0]
    kind = str(first["type"])
    message = _MESSAGES.get(kind) or str(first["msg"])
    message = message.removeprefix("Value error, ")
    return ScenarioError(path_of(first["loc"]), message[:1].lower() + message[1:] if kind != "value_error" else message)
