"""Quantities as Kubernetes writes them, read exactly: `1500m`, `2.5`, `36Gi`, `1e3`.

Owns the notation, its limits, and the units of a scenario in which quantities come out. Does not own which field has which
unit. A quantity is a fraction here, so nothing is lost before a unit is chosen; what is finer than the unit is rounded up then, as
Kubernetes does. Example: `1500m` is 3/2, `1Ki` is 1024, `1E` is 10**18 and `1E2` is 100.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from scheduler.sim import units

LENGTH_MAXIMUM = 64
EXPONENT_MAXIMUM = 64  # far beyond the 10**18 that a cluster can count to

_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_FINE = {"m": 10**3, "u": 10**6, "n": 10**9}
_PATTERN = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?:[eE](?P<exponent>[+-]?\d+)|(?P<suffix>[KMGTPE]i|[numkMGTPE]?))")


def parse(value: Any) -> Fraction:
    """Return the quantity in whole units; ValueError says what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a quantity such as 4, 500m or 36Gi, not {type(value).__name__}")
    text = value if isinstance(value, str) else repr(value)
    found = _PATTERN.fullmatch(text) if len(text) <= LENGTH_MAXIMUM and text.isascii() else None
    if found is None:
        raise ValueError(f"must be a quantity such as 4, 500m or 36Gi, not {text[:LENGTH_MAXIMUM]!r}")
    number = Fraction(found["number"])
    if found["exponent"] is not None:
        exponent = int(found["exponent"])
        if abs(exponent) > EXPONENT_MAXIMUM:
            raise ValueError(f"has an exponent beyond {EXPONENT_MAXIMUM}: {text}")
        return number * Fraction(10) ** exponent
    suffix = found["suffix"]
    if suffix in _FINE:
        return number / _FINE[suffix]
    return number * (_BINARY[suffix] if suffix in _BINARY else _DECIMAL[suffix])


@dataclass(frozen=True, slots=True)
class Unit:
    """How a resource is counted: `scale` of ours per unit of Kubernetes, `per_number` of ours per number in a scenario file."""

    scale: int
    per_number: int
    maximum: int  # of the number in a file

    def count(self, quantity: Fraction) -> int:
        """Return the quantity in our unit, rounded up."""
        return -int(-quantity * self.scale // 1)

    def is_exact(self, quantity: Fraction) -> bool:
        """Tell whether nothing is rounded."""
        return (quantity * self.scale).denominator == 1

    def fits(self, count: int) -> bool:
        """Tell whether a scenario can say so much."""
        return count <= self.maximum * self.per_number

    def number(self, count: int) -> int | float:
        """Return what stands in the file for a count in our unit."""
        return count // self.per_number if count % self.per_number == 0 else count / self.per_number


GPU = Unit(units.MILLI, units.MILLI, units.GPUS_MAXIMUM)
CPU = Unit(units.MILLI, units.MILLI, units.CPUS_MAXIMUM)
MEMORY = Unit(1, units.GIB_BYTES, units.MEMORY_GIB_MAXIMUM)
