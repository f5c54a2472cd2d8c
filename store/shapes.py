"""What a job class's row says of its shape: JSON text to value. The other way is store/jobs.py, which makes the text once per class."""

from __future__ import annotations

import json
from functools import lru_cache

from domain.jobs import Shape

SHAPES_KEPT = 8_192  # the classes of a busy queue are the same in every cycle


@lru_cache(maxsize=SHAPES_KEPT)
def shape_of(text: str) -> Shape:
    """Return the shape that a class row holds."""
    fields = json.loads(text)
    return Shape(**{**fields, "flavors": tuple(fields["flavors"]), "sites": tuple(fields["sites"])})
