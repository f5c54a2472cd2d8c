"""Metrics of a simulation: what its time line adds up to.

Owns the sums and the definitions (docs/scenario.md states them for readers). Does not own time or outcomes: simulate.py
calls `move_to` when time moves, `holds` when a job takes or gives back GPUs, `look_at` at the end of each instant, counts in `decided`,
and asks for `summary` at the end. Sums are integers in
milli-GPU-milliseconds; the printed figures are seconds and ratios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from scheduler.decision.fit import bits
from scheduler.sim.world import World

PERCENTILES = (50, 95, 99)
MILLISECONDS_PER_SECOND = 1_000
MILLI = 1_000
DIGITS = 6  # of printed ratios and seconds


@dataclass(slots=True)
class Decided:
    """How much was decided, and how long that took on the caller's clock."""

    passes: int = 0
    starts: int = 0
    preemptions: int = 0
    spent_ns: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the jobs, as far as metrics go. `weights` names the tenants that asked for GPUs."""

    makespan_ms: int
    waits_ms: Sequence[int]
    slowdowns: Sequence[Fraction]
    weights: Mapping[str, Fraction]


@dataclass(slots=True)
class Metrics:
    """Running sums of one simulation."""

    capacity_milli_gpu: int
    last_ms: int
    held_milli_gpu: int = 0
    held_integral: int = 0
    elapsed_ms: int = 0
    fragmented_milli_gpu: int = 0
    fragmented_integral: int = 0
    waiting_ms: int = 0
    has_waiting: bool = False
    end_of_arrivals: Fraction | None = None
    lost_milli_gpu_ms: int = 0
    used_by_tenant: dict[str, int] = field(default_factory=dict)
    held_by_tenant: dict[str, int] = field(default_factory=dict)
    decided: Decided = field(default_factory=Decided)

    def move_to(self, now_ms: int) -> None:
        """Account for the time up to `now_ms` at the present state."""
        span_ms = now_ms - self.last_ms
        self.last_ms = now_ms
        self.elapsed_ms += span_ms
        self.held_integral += span_ms * self.held_milli_gpu
        if self.has_waiting:
            self.waiting_ms += span_ms
            self.fragmented_integral += span_ms * self.fragmented_milli_gpu
        for tenant, held in self.held_by_tenant.items():
            self.used_by_tenant[tenant] = self.used_by_tenant.get(tenant, 0) + span_ms * held

    def holds(self, tenant: str, milli_gpu: int) -> None:
        """Account for a lease that begins (positive) or ends (negative) now."""
        self.held_milli_gpu += milli_gpu
        self.held_by_tenant[tenant] = self.held_by_tenant.get(tenant, 0) + milli_gpu

    def look_at(self, world: World) -> None:
        """Take note of what is free and of no use to those who wait."""
        self.has_waiting = world.has_queue
        self.fragmented_milli_gpu = unusable_milli_gpu(world) if self.has_waiting else 0

    def arrivals_ended(self) -> None:
        """Take note of the allocation after the last arrival was decided on."""
        self.end_of_arrivals = self._ratio(self.held_milli_gpu, self.capacity_milli_gpu)

    def _ratio(self, part: int, whole: int) -> Fraction:
        return Fraction(part, whole) if whole else Fraction(0)

    def summary(self, outcome: Outcome, rss_peak_bytes: int) -> dict[str, Any]:
        """Return the metrics as printed."""
        seconds_spent = self.decided.spent_ns / 1_000_000_000
        made = self.decided.starts + self.decided.preemptions
        return {
            "makespan_seconds": outcome.makespan_ms / MILLISECONDS_PER_SECOND,
            "wait_seconds": distribution([Fraction(wait, MILLISECONDS_PER_SECOND) for wait in outcome.waits_ms]),
            "slowdown": distribution(outcome.slowdowns),
            "gpu_allocation_ratio": {
                "mean": rounded(self._ratio(self.held_integral, self.capacity_milli_gpu * self.elapsed_ms)),
                "end_of_arrivals": rounded(self.end_of_arrivals or Fraction(0)),
            },
            "fragmentation_milli_gpu": self.fragmented_integral // self.waiting_ms if self.waiting_ms else 0,
            "jain_index": rounded(jain_index(self.used_by_tenant, outcome.weights)),
            "preemptions": self.decided.preemptions,
            "lost_gpu_seconds": self.lost_milli_gpu_ms / (MILLI * MILLISECONDS_PER_SECOND),
            "decisions": made,
            "decision_passes": self.decided.passes,
            "decisions_per_second": round(made / seconds_spent, 1) if seconds_spent else 0.0,
            "rss_peak_bytes": rss_peak_bytes,
        }


def rounded(value: Fraction) -> float:
    """Return a figure as printed."""
    return round(float(value), DIGITS)


def distribution(values: Sequence[Fraction]) -> dict[str, float]:
    """Return mean and nearest-rank percentiles; zeros when there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {"mean": 0.0, **{f"p{percentile}": 0.0 for percentile in PERCENTILES}}
    # Nearest rank: the smallest value that at least p percent of all values do not exceed.
    ranks = {f"p{percentile}": rounded(ordered[-(-percentile * len(ordered) // 100) - 1]) for percentile in PERCENTILES}
    return {"mean": rounded(sum(ordered, Fraction(0)) / len(ordered)), **ranks}


def jain_index(used: Mapping[str, int], weights: Mapping[str, Fraction]) -> Fraction:
    """Return Jain's fairness index of GPU time by weight: 1 is perfectly fair, 1/n the opposite. Weight 0 has no fair share."""
    shares = [used.get(tenant, 0) / weight for tenant, weight in weights.items() if weight]
    squares = sum((share * share for share in shares), Fraction(0))
    if not squares:
        return Fraction(1)
    total = sum(shares, Fraction(0))
    return total * total / (len(shares) * squares)


def unusable_milli_gpu(world: World) -> int:
    """Count free GPUs on nodes that have too few of them for a replica of any waiting job of that model."""
    smallest: dict[str, int] = {}
    for key in world.waiting():
        for model in key.shape.flavors:
            needed = key.shape.slices_per_replica
            smallest[model] = min(smallest.get(model, needed), needed)
    unusable = 0
    for model, needed in smallest.items():
        for free, nodes in enumerate(world.fleet.buckets.get(model, [])[:needed]):
            unusable += free * sum(1 for _ in bits(nodes))
    return unusable * MILLI
