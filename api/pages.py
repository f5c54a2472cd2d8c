"""Cursor pages: opaque cursors that name the last item seen, so that new rows never shift a page.

A cursor is the item's key in base64; it grants nothing and is checked like any input. Called by every listing route.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query

from store.errors import InvalidError
from terrace.models.common import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAXIMUM

T = TypeVar("T")
CURSOR_LENGTH_MAXIMUM = 256

Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT_MAXIMUM, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=CURSOR_LENGTH_MAXIMUM, description="`next_cursor` of the page before.")]
LIMIT_DEFAULT = PAGE_LIMIT_DEFAULT


def encode(key: str | int) -> str:
    """Return the cursor that names `key`."""
    return base64.urlsafe_b64encode(str(key).encode()).decode().rstrip("=")


def decode(cursor: str | None) -> str:
    """Return the key that a cursor names, empty for none; InvalidError when it is not one of ours."""
    if cursor is None:
        return ""
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _refused() from error
    if not key.isprintable():
        raise _refused()
    return key


def decode_number(cursor: str | None) -> int | None:
    """Return the number that a cursor names, None for none; InvalidError when it is not one of ours."""
    text = decode(cursor)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _refused()
    return int(text)


def cut(items: Iterable[T], cursor: str | None, limit: int, *, key: Callable[[T], str], answer: Callable[[T], Any]) -> dict[str, Any]:
    """Return the page of a short listing that was read whole: what comes after the cursor in order of `key`, which is unique."""
    after = decode(cursor)
    found = sorted((item for item in items if key(item) > after), key=key)[:limit]
    return {"items": [answer(item) for item in found], "next_cursor": next_cursor(found, limit, key)}


def next_cursor(items: Sequence[T], limit: int, key: Callable[[T], str | int]) -> str | None:
    """Return the cursor of the page after `items`, None when this one was not full."""
    return encode(key(items[-1])) if len(items) == limit else None


def _refused() -> InvalidError:
    return InvalidError("invalid_cursor", "cursor: not a `next_cursor` of this listing", field="cursor")
