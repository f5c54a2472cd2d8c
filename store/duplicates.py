"""Turns the database's refusal of a duplicate into a refusal that a person understands. Called by the store's commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from store.errors import ConflictError


@contextmanager
def refused_as(code: str, message: str, *, field: str) -> Iterator[None]:
    """Raise ConflictError(code, message, field=field) when the block breaks a unique constraint."""
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(code, message, field=field) from error
