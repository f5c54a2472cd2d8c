"""What a job class's row says of its shape and place: JSON text to value, and the place's text. The shape's text is made once per class by
store/jobs.py."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache

from domain.jobs import Shape
from scheduler.decision.where import ANYWHERE, Where, Within

SHAPES_KEPT = 8_192  # the classes of a busy queue are the same in every cycle


@lru_cache(maxsize=SHAPES_KEPT)
def shape_of(text: str) -> Shape:
    """Return the shape that a class row holds."""
    fields = json.loads(text)
    return Shape(**{**fields, "flavors": tuple(fields["flavors"]), "sites": tuple(fields["sites"])})


@lru_cache(maxsize=SHAPES_KEPT)
def place_of(text: str) -> Where:
    """Return what a class row demands of nodes; fields that it does not name are as anywhere."""
    said = json.loads(text)
    return Where(
        labels=tuple((name, value) for name, value in said.get("labels", ())),
        tolerates=tuple(said.get("tolerates", ())),
        denied_sites=tuple(said.get("denied_sites", ())),
        preferred_sites=tuple(said.get("preferred_sites", ())),
        within=Within(said.get("within", ANYWHERE.within)),
    )


def place_text(where: Where) -> str:
    """Return the text that a class row keeps of a place: the fields that differ from anywhere."""
    plain = asdict(ANYWHERE)
    said = {name: value for name, value in asdict(where).items() if value != plain[name]}
    return json.dumps(said, sort_keys=True, separators=(",", ":"))
