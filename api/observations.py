"""What an agent may say about a lease or a device, checked by kind before it is kept.

Owns the fields of each kind of observation. The scheduler trusts what is stored, and a value that it cannot take would stop it for
everybody; so a wrong type is refused here, with the field's path, and what users' code chose (progress, messages) is cut to size. Fields
that this release does not know are dropped: a newer agent may say more. Called by api/routes/agents.py.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from domain.slices import DeviceHealth
from domain.states import FailureClass
from store.errors import InvalidError
from terrace.models.agents import LOG_CHUNK_BYTES_MAXIMUM, ObservationKind

F = TypeVar("F", bound="_Fields")
MESSAGE_CHARACTERS_MAXIMUM = 2_000
PROGRESS_FIELDS_MAXIMUM = 64
PROGRESS_NAME_CHARACTERS_MAXIMUM = 128
PROGRESS_TEXT_CHARACTERS_MAXIMUM = 512
OFFSET_MAXIMUM = 1 << 50
INTEGER_BOUND = 1 << 53  # what every JSON reader holds exactly


def _cut(value: object) -> object:
    """Return text in the form in which any database and any screen takes it."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MESSAGE_CHARACTERS_MAXIMUM] if isinstance(value, str) else value


Message = Annotated[str | None, BeforeValidator(_cut)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="ignore", use_enum_values=True)


class _Exited(_Fields):
    exit_code: Annotated[int, Field(ge=-INTEGER_BOUND, le=INTEGER_BOUND)] | None = None
    failure_class: FailureClass | None = None
    message: Message = None
    was_stopped: bool | None = None


class _Log(_Fields):
    offset: Annotated[int, Field(strict=True, ge=0, le=OFFSET_MAXIMUM)]
    text: str | None = None
    base64: str | None = None


class _Lost(_Fields):
    message: Message = None


class _DeviceHealth(_Fields):
    device_uuid: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
    health: DeviceHealth
    detail: Message = None


_FIELDS: dict[ObservationKind, type[_Fields]] = {
    ObservationKind.STARTED: _Fields,
    ObservationKind.EXITED: _Exited,
    ObservationKind.LOST: _Lost,
    ObservationKind.GONE: _Fields,
    ObservationKind.DEVICE_HEALTH: _DeviceHealth,
}


def checked(kind: ObservationKind, data: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return what is kept of an observation's data; RequestValidationError names what is wrong below `field`."""
    if kind is ObservationKind.PROGRESS:
        return progress(data)
    return _read(_FIELDS[kind], data, field).model_dump(exclude_none=True)


def output(data: Mapping[str, Any], field: str) -> tuple[int, bytes]:
    """Return a piece of output and its offset: `text`, or `base64` for what is not UTF-8. Refused as in `checked`."""
    sent = _read(_Log, data, field)
    try:
        piece = sent.text.encode() if sent.text is not None else base64.b64decode(sent.base64 or "", validate=True)
    except ValueError as error:
        raise _refused(field, "base64", "not base64") from error
    if sent.text is None and sent.base64 is None:
        raise _refused(field, "text", "needs `text` or `base64`")
    if len(piece) > LOG_CHUNK_BYTES_MAXIMUM:
        raise _refused(field, "text", f"a piece has at most {LOG_CHUNK_BYTES_MAXIMUM} bytes", LOG_CHUNK_BYTES_MAXIMUM)
    return sent.offset, piece


def _read(model: type[F], data: Mapping[str, Any], field: str) -> F:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**item, "loc": ("body", field, *item["loc"])} for item in errors]) from error


def _refused(field: str, name: str, message: str, limit: int | None = None) -> InvalidError:
    path = f"{field}.{name}"
    return InvalidError("invalid_request", f"{path}: {message}", field=path, limit=limit)


def progress(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a progress report that any reader can take: finite numbers and short text, and one level of named metrics."""
    kept = _plain(data)
    metrics = data.get("metrics")
    if isinstance(metrics, Mapping):
        kept["metrics"] = _plain(metrics)
    return kept


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in list(data.items())[:PROGRESS_FIELDS_MAXIMUM]:
        if len(name) <= PROGRESS_NAME_CHARACTERS_MAXIMUM and _is_plain(value):
            kept[str(_cut(name))] = str(_cut(value))[:PROGRESS_TEXT_CHARACTERS_MAXIMUM] if isinstance(value, str) else value
    return kept


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -INTEGER_BOUND <= value <= INTEGER_BOUND
    return isinstance(value, str)
