"""Whether a YAML text nests too deep to be composed: the composer recurses in C, and brackets by the thousand would end the process.

Owns that one question. A quick look at brackets and indentation settles it for every honest file; only where they look deep are
the parser's events counted, which needs no recursion. Called before anything is composed (reading.py, kueue_documents.py).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

LEVELS_MAXIMUM = 1_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BRACKET = re.compile(r"[\[\]{}]")
# A level of block style costs a space of indentation, or a mark and a space within a line.
_DEEP_BLOCK = re.compile(rf"^[ ]{{{LEVELS_MAXIMUM // 2},}}|(?:[-?:][ \t]+){{{LEVELS_MAXIMUM // 2},}}", re.MULTILINE)


def is_too_deep(text: str) -> bool:
    """Tell whether `text` holds more than `LEVELS_MAXIMUM` levels; YAMLError where it is no YAML up to there."""
    return _looks_deep(text) and _is_deep(text)


def _looks_deep(text: str) -> bool:
    depth = 0
    for found in _BRACKET.finditer(text):
        depth = depth + 1 if found[0] in "[{" else max(depth - 1, 0)
        if depth > LEVELS_MAXIMUM // 2:
            return True
    return _DEEP_BLOCK.search(text) is not None


def _is_deep(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > LEVELS_MAXIMUM:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False
