"""Usage reports: rated lines clipped to a window, grouped, and proven against the leases.

A line that reaches over the window's edge is cut by the rule of `rating.part_cost_units`, so reports of adjacent windows sum to the
report of both. A line that lies inside counts as it is stored. The check derives the same totals a second time from the leases and the
price book, not from the lines, and computes every stored line anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from billing.calc import pricing, rating
from domain.intervals import Interval


class Group(StrEnum):
    """What a report can be grouped by."""

    TENANT = "tenant"
    PROJECT = "project"
    USER = "user"
    FLAVOR = "flavor"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class ReportLine:
    """A stored line, flat, as the report reads it."""

    kind: rating.LineKind
    lease_id: str
    tenant_id: str
    project_id: str
    user_id: str
    job_id: str
    flavor: str | None
    interval: Interval
    slices: int
    milli_gpu: int
    units_per_hour: int
    milli_gpu_ms: int
    amount_units: int


@dataclass(frozen=True, slots=True)
class Row:
    """One group: its key in the order of the groups, how many leases, quantity and money."""

    key: tuple[str | None, ...]
    leases: int
    milli_gpu_ms: int
    amount_units: int


@dataclass(frozen=True, slots=True)
class Check:
    """The same totals from lines and from leases. Equal means: every lease is there, once, at the right price.

    `wrong_lines` counts lines whose stored quantity or amount is not what their own interval and price make.
    """

    leases: int
    lease_milli_gpu_ms: int
    line_milli_gpu_ms: int
    lease_amount_units: int
    line_amount_units: int
    wrong_lines: int = 0

    @property
    def is_equal(self) -> bool:
        """True when both ways agree to the unit, and every line with itself."""
        agrees = self.lease_milli_gpu_ms == self.line_milli_gpu_ms and self.lease_amount_units == self.line_amount_units
        return agrees and not self.wrong_lines


def clip(line: ReportLine, window: Interval) -> tuple[int, int] | None:
    """Return (milli_gpu_ms, amount_units) of the part of `line` inside `window`; None when it has none. A whole line counts as stored."""
    part = line.interval.clip(window)
    if part is None:
        return None
    return (line.milli_gpu_ms, line.amount_units) if part == line.interval else _computed(line, part)


def _computed(line: ReportLine, part: Interval) -> tuple[int, int]:
    """Return what a part of a line should say, from its quantities and its price."""
    amount_units = rating.part_cost_units(
        units_per_hour=line.units_per_hour, slices=line.slices, segment_start_ms=line.interval.start_ms, part=part
    )
    if line.kind is rating.LineKind.CREDIT:
        return 0, -amount_units
    return line.milli_gpu * part.length_ms, amount_units


def _key(line: ReportLine, group_by: Sequence[Group]) -> tuple[str | None, ...]:
    values = {
        Group.TENANT: line.tenant_id,
        Group.PROJECT: line.project_id,
        Group.USER: line.user_id,
        Group.FLAVOR: line.flavor,
        Group.JOB: line.job_id,
    }
    return tuple(values[group] for group in group_by)


def rows(lines: Iterable[ReportLine], window: Interval, group_by: Sequence[Group]) -> tuple[Row, ...]:
    """Return the groups of `lines` inside `window`, ordered by key (absent values first)."""
    totals: dict[tuple[str | None, ...], tuple[set[str], int, int]] = {}
    for line in lines:
        clipped = clip(line, window)
        if clipped is None:
            continue
        leases, milli_gpu_ms, amount_units = totals.get(_key(line, group_by), (set(), 0, 0))
        leases.add(line.lease_id)
        totals[_key(line, group_by)] = (leases, milli_gpu_ms + clipped[0], amount_units + clipped[1])
    ordered = sorted(totals.items(), key=lambda item: tuple(value or "" for value in item[0]))
    return tuple(Row(key, len(leases), milli_gpu_ms, amount_units) for key, (leases, milli_gpu_ms, amount_units) in ordered)


def check(leases: Iterable[rating.ClosedLease], prices: Sequence[pricing.Price], lines: Iterable[ReportLine], window: Interval) -> Check:
    """Compare the totals of `lines` with totals derived from `leases` and `prices` alone, both inside `window`."""
    count = lease_milli_gpu_ms = lease_amount_units = 0
    for lease in leases:
        part = lease.charged.clip(window)
        if part is None:
            continue
        count += 1
        lease_milli_gpu_ms += lease.milli_gpu * part.length_ms
        if not lease.is_credited:
            lease_amount_units += _amount_inside(lease, prices, part)
    lines = tuple(lines)
    line_totals = [clipped for clipped in (clip(line, window) for line in lines) if clipped is not None]
    return Check(
        leases=count,
        lease_milli_gpu_ms=lease_milli_gpu_ms,
        line_milli_gpu_ms=sum(quantity for quantity, _ in line_totals),
        lease_amount_units=lease_amount_units,
        line_amount_units=sum(amount for _, amount in line_totals),
        wrong_lines=sum(
            _computed(line, line.interval) != (line.milli_gpu_ms, line.amount_units) for line in lines if line.interval.clip(window)
        ),
    )


def _amount_inside(lease: rating.ClosedLease, prices: Sequence[pricing.Price], window: Interval) -> int:
    amount_units = 0
    for segment in pricing.segments(lease.charged, prices, lease.flavor):
        part = segment.interval.clip(window)
        if part is not None and segment.price is not None:
            amount_units += rating.part_cost_units(
                units_per_hour=segment.price.units_per_hour,
                slices=lease.slices,
                segment_start_ms=segment.interval.start_ms,
                part=part,
            )
    return amount_units
