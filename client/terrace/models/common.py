"""Bases, pages and problems: the shapes that every route shares.

Owns the rule that requests refuse unknown fields and answers ignore them. Knows no route and no resource.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

T = TypeVar("T")

PAGE_LIMIT_MAXIMUM = 500
PAGE_LIMIT_DEFAULT = 50

TIMESTAMP_MINIMUM = "1970-01-01T00:00:00Z"
TIMESTAMP_MAXIMUM = "9999-01-01T00:00:00Z"
_EARLIEST, _LATEST = datetime.fromisoformat(TIMESTAMP_MINIMUM), datetime.fromisoformat(TIMESTAMP_MAXIMUM)


def _within_reach(moment: datetime) -> datetime:
    """Return the moment in UTC when it can be kept in milliseconds and written again whatever its offset was."""
    if moment < _EARLIEST:
        raise PydanticCustomError("too_early", "must not be before {ge}", {"ge": TIMESTAMP_MINIMUM})
    if moment > _LATEST:
        raise PydanticCustomError("too_late", "must not be after {le}", {"le": TIMESTAMP_MAXIMUM})
    return moment.astimezone(UTC)


def rfc3339(moment: datetime) -> str:
    """Return a moment in UTC as the wire has it: `2026-11-24T02:22:12.123Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
# Free text. A null character can be in no process argument and no row; other control characters could rewrite a reader's terminal.
TEXT_PATTERN = r"^[^\x00]*$"
LINE_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=63)]
Text = Annotated[str, StringConstraints(pattern=TEXT_PATTERN)]
Line = Annotated[str, StringConstraints(pattern=LINE_PATTERN)]
Timestamp = Annotated[
    AwareDatetime,
    AfterValidator(_within_reach),
    PlainSerializer(rfc3339, return_type=str, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class Request(BaseModel):
    """A body that a client sends: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """A body that the service sends: fields that the reader does not know are ignored."""

    model_config = ConfigDict(extra="ignore")


class Page(Answer, Generic[T]):
    """A slice of a listing. `next_cursor` is null at the end."""

    items: list[T]
    next_cursor: str | None = None


class FieldError(Answer):
    """One field that was refused: its path, what is wrong, and the limit where there is one."""

    field: str
    message: str
    limit: Any = None


class Problem(Answer):
    """RFC 9457 problem details; `code` is stable, sentences may change."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    code: str
    errors: list[FieldError] = Field(default_factory=list)
    data: dict[str, Any] = Field(default_factory=dict)
    request_id: str | None = None
