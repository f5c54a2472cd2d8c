"""Bases, pages and problems: the shapes that every route shares.

Owns the rule that requests refuse unknown fields and answers ignore them. Knows no route and no resource.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")

PAGE_LIMIT_MAXIMUM = 500
PAGE_LIMIT_DEFAULT = 50

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
Timestamp = AwareDatetime


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
