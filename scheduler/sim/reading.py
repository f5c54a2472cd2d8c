"""Reading a scenario file: text in, a validated `Scenario` out, or one line that names the path of the field.

Owns YAML and the order of checks: text, duplicate keys, fields and units (scenario.py), names and references
(references.py). Does not own whether the core can decide it (support.py). YAML is loaded without any object construction;
file size and number of values are bounded, aliases are refused, because they can multiply a small file without bound.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from scheduler.sim import nesting, references
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
    scenario, problems = examine(text)
    if scenario is None:
        raise problems[0]
    return scenario


def examine(text: str) -> tuple[Scenario | None, list[ScenarioError]]:
    """Return the scenario in `text`, or None and all that is wrong with it: fields first, references once the fields are right."""
    try:
        content = _load(text)
        scenario = Scenario.model_validate(content)
    except ScenarioError as error:
        return None, [error]
    except ValidationError as error:
        return None, _field_problems(error)
    problems = references.problems(scenario)
    return (None, problems) if problems else (scenario, [])


def _load(text: str) -> Any:
    if len(text) > FILE_BYTES_MAXIMUM:
        raise ScenarioError("", f"the file is larger than {FILE_BYTES_MAXIMUM} bytes")
    try:
        if nesting.is_too_deep(text):
            raise ScenarioError("", f"more than {nesting.LEVELS_MAXIMUM} levels")
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise ScenarioError("", "the file is empty")
        _refuse_twice(root)
        return _construct(root)
    except yaml.YAMLError as error:
        raise ScenarioError("", f"is not YAML: {_one_line(error)}") from None
    except (ValueError, RecursionError) as error:  # a date that does not exist, digits or brackets by the thousand
        raise ScenarioError("", f"cannot be read: {str(error)[:80]}") from None


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


def _field_problems(error: ValidationError) -> list[ScenarioError]:
    """Return one problem per field: the branches of a choice each complain about the same one."""
    found: dict[str, ScenarioError] = {}
    for problem in error.errors(include_url=False):
        kind = str(problem["type"])
        message = (_MESSAGES.get(kind) or str(problem["msg"])).removeprefix("Value error, ")
        path = path_of([part for part in problem["loc"] if not _is_branch(part)])
        found.setdefault(path, ScenarioError(path, message[:1].lower() + message[1:] if kind != "value_error" else message))
    return list(found.values())


def _is_branch(part: str | int) -> bool:
    """Tell whether a part of a location names a branch of a choice of types, such as `literal['dynamic']`, and no field."""
    return isinstance(part, str) and part.endswith("]") and part.startswith(("literal[", "tuple["))
