"""How much of a capacity reservation its tenant left unused: exact sums over intervals, no clock, no rows.

Owns the arithmetic only. Devices set aside and not held are what finance may charge or report; what was held is billed as leases are.
Example: of 4 GPUs set aside for an hour the tenant held 2 for the first half: 3 GPU-hours were unused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """Milli-GPU that a tenant held from `start_ms` until before `end_ms`."""

    milli_gpu: int
    start_ms: int
    end_ms: int


def unused_milli_gpu_ms(milli_gpu: int, start_ms: int, end_ms: int, held: Iterable[Holding]) -> int:
    """Return what of `milli_gpu`, set aside in [start, end), was not held, in milli-GPU-milliseconds.

    More than what was set aside counts as all of it.
    """
    changes: list[tuple[int, int]] = []
    for item in held:
        first_ms, last_ms = max(item.start_ms, start_ms), min(item.end_ms, end_ms)
        if first_ms < last_ms:
            changes += [(first_ms, item.milli_gpu), (last_ms, -item.milli_gpu)]
    unused, now, at_ms = 0, 0, start_ms
    for change_ms, change in sorted(changes):
        unused += (change_ms - at_ms) * max(milli_gpu - now, 0)
        now, at_ms = now + change, change_ms
    return unused + (end_ms - at_ms) * max(milli_gpu - now, 0)
