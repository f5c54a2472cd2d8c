"""Rows named by identifier, a bounded number in one statement: databases limit how many values an IN list may hold.

Owns that number. Does not own the statements. Example: 1,200 identifiers are asked for in three statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

IN_LIST_MAXIMUM = 500


def in_lists(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the identifiers in their order, `IN_LIST_MAXIMUM` at a time."""
    for first in range(0, len(ids), IN_LIST_MAXIMUM):
        yield ids[first : first + IN_LIST_MAXIMUM]
