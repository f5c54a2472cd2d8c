"""Rating: one closed lease becomes lines.

A lease is charged for [granted, ended). Each price segment of that interval becomes one line. Inside a segment that begins at s, the
part [a, b) costs round(cost[s, b)) - round(cost[s, a)): cutting a line anywhere leaves the sum as it was, to the unit. Example: 1 slice at
10 units an hour from s = 0: [0, 30 min) costs 5, and cut at 7 min it costs round(1.17) = 1 and 5 - 1 = 4.

When the platform, the node or the device failed the attempt, each line is followed by a credit line over the same interval with the
opposite amount and no quantity: the time was held, and it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from billing.calc import pricing
from domain import money
from domain.intervals import MILLISECONDS_PER_HOUR, Interval
from domain.states import FailureClass, LeaseEndCause

CREDITED_CAUSES = frozenset({LeaseEndCause.NODE_LOST, LeaseEndCause.EVICTED, LeaseEndCause.NEVER_STARTED})


class LineKind(StrEnum):
    """What a line is: the charge for a lease's time, or its return."""

    LEASE = "lease"
    CREDIT = "credit"


@dataclass(frozen=True, slots=True)
class ClosedLease:
    """What rating needs to know of a lease that has ended."""

    id: str
    tenant_id: str
    project_id: str
    user_id: str
    job_id: str
    flavor: str | None
    slices: int
    milli_gpu: int
    charged: Interval
    end_cause: LeaseEndCause
    failure_class: FailureClass | None = None

    @property
    def is_credited(self) -> bool:
        """True when the end was not the user's doing: the charge is given back."""
        if self.failure_class is not None and not self.failure_class.is_user_caused:
            return self.failure_class is not FailureClass.DEPENDENCY_FAILED
        return self.end_cause in CREDITED_CAUSES


@dataclass(frozen=True, slots=True)
class Line:
    """One rated piece of a lease. The price is copied in, so that the line can be recomputed without the price book."""

    id: str
    kind: LineKind
    lease: ClosedLease
    interval: Interval
    segment_start_ms: int
    price_id: str | None
    units_per_hour: int
    milli_gpu_ms: int
    amount_units: int


def cost_units(*, units_per_hour: int, slices: int, length_ms: int) -> int:
    """Return the rounded cost of `slices` slices over the first `length_ms` of a price segment, in smallest accounted units."""
    return money.round_half_even(units_per_hour * slices * length_ms, MILLISECONDS_PER_HOUR)


def part_cost_units(*, units_per_hour: int, slices: int, segment_start_ms: int, part: Interval) -> int:
    """Return the cost of `part` of a segment, such that the costs of parts that tile it sum to the cost of the whole."""
    until_end = cost_units(units_per_hour=units_per_hour, slices=slices, length_ms=part.end_ms - segment_start_ms)
    until_start = cost_units(units_per_hour=units_per_hour, slices=slices, length_ms=part.start_ms - segment_start_ms)
    return until_end - until_start


def rate(lease: ClosedLease, prices: Sequence[pricing.Price]) -> tuple[Line, ...]:
    """Return the lines of a closed lease in order of time, each charge followed by its credit where one is due."""
    lines: list[Line] = []
    for ordinal, segment in enumerate(pricing.segments(lease.charged, prices, lease.flavor)):
        units_per_hour = segment.price.units_per_hour if segment.price else 0
        charge = Line(
            id=f"{lease.id}.{ordinal}",
            kind=LineKind.LEASE,
            lease=lease,
            interval=segment.interval,
            segment_start_ms=segment.interval.start_ms,
            price_id=segment.price.id if segment.price else None,
            units_per_hour=units_per_hour,
            milli_gpu_ms=lease.milli_gpu * segment.interval.length_ms,
            amount_units=cost_units(units_per_hour=units_per_hour, slices=lease.slices, length_ms=segment.interval.length_ms),
        )
        lines.append(charge)
        if lease.is_credited and charge.amount_units:
            lines.append(_credit(charge, ordinal))
    return tuple(lines)


def _credit(charge: Line, ordinal: int) -> Line:
    return Line(
        id=f"{charge.lease.id}.{ordinal}.credit",
        kind=LineKind.CREDIT,
        lease=charge.lease,
        interval=charge.interval,
        segment_start_ms=charge.segment_start_ms,
        price_id=charge.price_id,
        units_per_hour=charge.units_per_hour,
        milli_gpu_ms=0,
        amount_units=-charge.amount_units,
    )
