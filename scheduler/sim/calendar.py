"""Windows of time in a scenario: what recurring ones stand for, and how much of the capacity reservations is left unused.

Owns the expansion into single windows, which validation and the world share, and the sums that a simulation reports for billing.
Does not own what a window closes (scheduler/decision/windows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.decision.snapshot import CapacityReservation, MaintenanceWindow
from scheduler.sim.scenario import Scenario, WindowPart

OCCURRENCES_MAXIMUM = 10_000
MILLI_GPU_MS_PER_GPU_SECOND = 1_000_000

Held = Callable[[str, str], int]  # (tenant, GPU model) -> milli-GPU held now


def occurrences(part: WindowPart) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of a window and of its repetitions, in order."""
    yield part.start_ms, part.end_ms
    if part.repeat_every_ms is None or part.repeat_until_ms is None:
        return
    start_ms = part.start_ms + part.repeat_every_ms
    while start_ms < part.repeat_until_ms:
        yield start_ms, start_ms + part.end_ms - part.start_ms
        start_ms += part.repeat_every_ms


def problem(part: WindowPart) -> tuple[str, str] | None:
    """Return (field, message) when the repetitions of a window make no sense."""
    if (part.repeat_every_ms is None) != (part.repeat_until_ms is None):
        return ("repeat_every", "stands together with repeat_until")
    if part.repeat_every_ms is None or part.repeat_until_ms is None:
        return None
    if part.repeat_every_ms < part.end_ms - part.start_ms:
        return ("repeat_every", "is shorter than the window itself")
    if (part.repeat_until_ms - part.start_ms) // part.repeat_every_ms >= OCCURRENCES_MAXIMUM:
        return ("repeat_until", f"makes more than {OCCURRENCES_MAXIMUM} windows")
    return None


def reservations(scenario: Scenario) -> list[CapacityReservation]:
    """Return all capacity reservations, repetitions included, in the order of the file."""
    return [
        CapacityReservation(part.name, part.tenant, part.gpu_model, part.milli_gpu, start_ms, end_ms)
        for part in scenario.capacity_reservations
        for start_ms, end_ms in occurrences(part)
    ]


def maintenance(scenario: Scenario) -> list[MaintenanceWindow]:
    """Return all maintenance windows, repetitions included, in the order of the file."""
    return [
        MaintenanceWindow(part.name, part.nodes, start_ms, end_ms)
        for part in scenario.maintenance_windows
        for start_ms, end_ms in occurrences(part)
    ]


@dataclass(slots=True)
class Reserved:
    """What capacity reservations set aside so far, and what of it their tenants did not use. Sums in milli-GPU-milliseconds."""

    reservations: Sequence[CapacityReservation]
    set_aside: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)

    def pass_time(self, from_ms: int, to_ms: int, held: Held) -> None:
        """Account for [from, to), during which `held` did not change."""
        for item in self.reservations:
            span_ms = min(to_ms, item.end_ms) - max(from_ms, item.start_ms)
            if span_ms > 0:
                used = min(held(item.tenant, item.flavor), item.milli_gpu)
                self.set_aside[item.name] = self.set_aside.get(item.name, 0) + span_ms * item.milli_gpu
                self.unused[item.name] = self.unused.get(item.name, 0) + span_ms * (item.milli_gpu - used)

    def summary(self) -> dict[str, Any]:
        """Return the sums as printed, in GPU-seconds."""
        return {
            name: {
                "reserved_gpu_seconds": total / MILLI_GPU_MS_PER_GPU_SECOND,
                "unused_gpu_seconds": self.unused[name] / MILLI_GPU_MS_PER_GPU_SECOND,
            }
            for name, total in self.set_aside.items()
        }
