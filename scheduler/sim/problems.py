"""What can be wrong with a scenario: an error with the path of the field. `jobs[3].gpus` is the path of a field."""

from __future__ import annotations

from collections.abc import Sequence


class ScenarioError(Exception):
    """The scenario breaks the format. `path` is empty when the whole file is meant."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class UnsupportedError(Exception):
    """The scenario is valid, and asks for something that the core cannot decide yet."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: not supported yet")
        self.path = path


def path_of(parts: Sequence[str | int]) -> str:
    """Return the path of a field as people write it: names joined by dots, places in lists in brackets."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
