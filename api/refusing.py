"""How a check of a job specification refuses a field: by its path in the request, with the limit that it broke.

Owns nothing but that form. Called by submission.py and placement.py.
"""

from __future__ import annotations

from typing import Any, NoReturn

from store.errors import InvalidError

KNOWN_NAMES_MAXIMUM = 50


class Refusing:
    """Raises InvalidError for fields of one specification; `prefix` is where that stands in the request."""

    def __init__(self, prefix: str, *, gangs_span_nodes: bool) -> None:
        self._prefix = prefix
        self.gangs_span_nodes = gangs_span_nodes

    def refuse(self, code: str, field: str, message: str, limit: Any = None) -> NoReturn:
        """Refuse `field`."""
        path = f"{self._prefix}{field}"
        raise InvalidError(code, f"{path}: {message}", field=path, limit=limit)


def some(names: Any) -> list[str]:
    """Return names to choose from, not too many to read."""
    return sorted(names)[:KNOWN_NAMES_MAXIMUM]
