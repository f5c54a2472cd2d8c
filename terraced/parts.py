"""Settings of the parts (api, agent, scheduler, billing) as an operator names them: `TERRACED_PART__FIELD`.

Owns: which fields of a part's own dataclass can be set, their checking, and the names and meanings for docs/settings.md. A part keeps its
plain dataclass with its defaults and reads no environment; what the composition root fills itself (`Part.filled`) cannot be set a second
way. A nested dataclass nests in the name: `TERRACED_API__ARCHIVE__MEMBERS_MAXIMUM`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from agents.settings import AgentSettings
from api.settings import ApiSettings
from billing.service import BillingSettings
from scheduler.service import SchedulerSettings

PREFIX = "TERRACED_"
DELIMITER = "__"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A part's settings and the fields that the composition root fills."""

    kind: type
    filled: frozenset[str]


PARTS = {
    "api": Part(ApiSettings, frozenset({"state_dir", "is_embedded", "service_version"})),
    "agent": Part(
        AgentSettings,
        frozenset(
            {
                "api_url", "token", "state_dir", "job_python", "agent_version", "isolation", "is_everybody_trusted",
                "hidden_paths", "metrics_port",
                "devices.node_name", "devices.is_simulation_allowed", "devices.simulated_device_count",
            }
        ),
    ),
    "scheduler": Part(SchedulerSettings, frozenset()),
    "billing": Part(BillingSettings, frozenset()),
}  # fmt: skip


class PartError(ValueError):
    """A setting of a part that cannot be; the message names it as the environment does."""


def check(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given for the part `name`, in their own types; PartError names the first that cannot be."""
    try:
        checked = _model(PARTS[name].kind, PARTS[name].filled).model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise PartError(f"{variable(name, *(str(step) for step in first['loc']))}: {first['msg']}") from error
    return _given(checked)


def with_given(settings: T, given: Mapping[str, Any]) -> T:
    """Return a part's settings with what was given in the place of its defaults."""
    changes = {
        name: with_given(getattr(settings, name), value) if dataclasses.is_dataclass(getattr(settings, name)) else value
        for name, value in given.items()
    }
    changed: T = dataclasses.replace(settings, **changes)  # type: ignore[type-var]  # a dataclass, as every part is
    return changed


def variable(*steps: str) -> str:
    """Return the name of a setting in the environment."""
    return PREFIX + DELIMITER.join(steps).upper()


def documented() -> Iterator[tuple[str, str, str]]:
    """Yield (variable, default, meaning) of every setting of every part, in order."""
    for name, part in PARTS.items():
        yield from _documented((name,), part.kind, part.filled)


def _documented(steps: tuple[str, ...], kind: type, filled: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    hints, comments = typing.get_type_hints(kind), _comments(kind)
    for field in dataclasses.fields(kind):
        if field.name in filled:
            continue
        inner = _dataclass(hints[field.name])
        if inner is not None:
            yield from _documented((*steps, field.name), inner, _below(field.name, filled))
        else:
            yield variable(*steps, field.name), _default(field), comments.get(field.name, "")


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return "" if value in (None, {}, ()) else str(value)


def _comments(kind: type) -> dict[str, str]:
    """Return what the line of each field says behind it: the code is where a setting is explained."""
    found = re.findall(r"^    (\w+): [^#\n]*#\s*(.+)$", inspect.getsource(kind), re.MULTILINE)
    return {name: text.split("type: ignore")[0].strip() for name, text in found}


@functools.cache
def _model(kind: type, filled: frozenset[str]) -> type[BaseModel]:
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in filled:
            continue
        inner = _dataclass(hints[field.name])
        if inner is not None:
            inner_model = _model(inner, _below(field.name, filled))
            fields[field.name] = (inner_model, Field(default_factory=inner_model))
        else:
            fields[field.name] = (hints[field.name], Field(default=None, ge=0) if _is_number(hints[field.name]) else None)
    return create_model(kind.__name__, __config__=ConfigDict(extra="forbid", hide_input_in_errors=True), **fields)


def _is_number(hint: Any) -> bool:
    return not {hint, *typing.get_args(hint)}.isdisjoint({int, float})


def _dataclass(hint: Any) -> type | None:
    return hint if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and dataclasses.is_dataclass(hint) else None


def _below(name: str, filled: frozenset[str]) -> frozenset[str]:
    return frozenset(item.removeprefix(f"{name}.") for item in filled if item.startswith(f"{name}."))


def _given(model: BaseModel) -> dict[str, Any]:
    found = {}
    for name in model.model_fields_set:
        value = getattr(model, name)
        found[name] = _given(value) if isinstance(value, BaseModel) else value
    return found
