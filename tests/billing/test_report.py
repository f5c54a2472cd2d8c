"""Reports clip lines to a window, group them, and agree with the leases to the unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.calc import pricing, rating, report
from domain.intervals import Interval
from domain.states import FailureClass, LeaseEndCause
from tests.billing.test_rating import BOOK, HOUR_MS, LEASE, cut, prices_strategy, spans


def flat(line: rating.Line) -> report.ReportLine:
    lease = line.lease
    return report.ReportLine(
        line.kind,
        lease.id,
        lease.tenant_id,
        lease.project_id,
        lease.user_id,
        lease.job_id,
        lease.flavor,
        line.interval,
        lease.slices,
        lease.milli_gpu,
        line.units_per_hour,
        line.milli_gpu_ms,
        line.amount_units,
    )


def stored(leases: list[rating.ClosedLease], prices: list[pricing.Price]) -> list[report.ReportLine]:
    return [flat(line) for lease in leases for line in rating.rate(lease, prices)]


@st.composite
def closed_leases(draw: st.DrawFn) -> list[rating.ClosedLease]:
    count = draw(st.integers(0, 6))
    return [
        replace(
            LEASE,
            id=f"lea_{number}",
            tenant_id=draw(st.sampled_from(["ten_a", "ten_b"])),
            flavor=draw(st.sampled_from(["h200", "a100", None])),
            slices=draw(st.integers(1, 8)),
            charged=draw(spans(0, 20_000_000)),
            failure_class=draw(st.sampled_from([None, FailureClass.DEVICE])),
        )
        for number in range(count)
    ]


def test_rows_are_grouped_and_ordered_by_key() -> None:
    other = replace(LEASE, id="lea_2", tenant_id="ten_b", charged=Interval(HOUR_MS, 2 * HOUR_MS))
    rows = report.rows(stored([other, LEASE], list(BOOK)), Interval(0, 10 * HOUR_MS), [report.Group.TENANT])
    assert rows == (
        report.Row(("ten_a",), 1, 4_000 * HOUR_MS, 15_000_000),
        report.Row(("ten_b",), 1, 2_000 * HOUR_MS, 7_000_000),
    )


def test_window_cuts_a_line_at_its_edge() -> None:
    rows = report.rows(stored([LEASE], list(BOOK)), Interval(0, HOUR_MS + HOUR_MS // 2), [])
    assert rows == (report.Row((), 1, HOUR_MS * 1_000, 3_500_000),)


def test_missing_line_is_seen_by_the_check() -> None:
    lines = stored([LEASE], list(BOOK))[:1]
    assert not report.check([LEASE], BOOK, lines, Interval(0, 10 * HOUR_MS)).is_equal


def test_line_that_is_counted_twice_is_seen_by_the_check() -> None:
    lines = stored([LEASE], list(BOOK))
    assert not report.check([LEASE], BOOK, [*lines, lines[0]], Interval(0, 10 * HOUR_MS)).is_equal


@pytest.mark.parametrize("wrong", [{"amount_units": 999_999}, {"milli_gpu_ms": 1}], ids=["amount", "quantity"])
def test_line_that_was_stored_wrong_is_counted_as_stored_and_seen_by_the_check(wrong: dict[str, Any]) -> None:
    first, *others = stored([LEASE], list(BOOK))
    lines, window = [replace(first, **wrong), *others], Interval(0, 10 * HOUR_MS)
    check = report.check([LEASE], BOOK, lines, window)
    assert (check.wrong_lines, check.is_equal) == (1, False)
    (row,) = report.rows(lines, window, [])
    assert (row.milli_gpu_ms, row.amount_units) == (sum(line.milli_gpu_ms for line in lines), sum(line.amount_units for line in lines))


def test_errors_that_cancel_are_seen_by_the_check() -> None:
    first, second = stored([LEASE], list(BOOK))
    lines = [replace(first, amount_units=first.amount_units + 1), replace(second, amount_units=second.amount_units - 1)]
    check = report.check([LEASE], BOOK, lines, Interval(0, 10 * HOUR_MS))
    assert (check.lease_amount_units, check.wrong_lines, check.is_equal) == (check.line_amount_units, 2, False)


def test_credited_lease_has_quantity_and_costs_nothing() -> None:
    lost = replace(LEASE, end_cause=LeaseEndCause.NODE_LOST)
    window = Interval(0, 10 * HOUR_MS)
    assert report.rows(stored([lost], list(BOOK)), window, []) == (report.Row((), 1, 4_000 * HOUR_MS, 0),)
    assert report.check([lost], BOOK, stored([lost], list(BOOK)), window).is_equal


@given(closed_leases(), prices_strategy, spans(0, 20_000_000))
def test_lines_and_leases_agree_in_every_window(leases: list[rating.ClosedLease], prices: list[pricing.Price], window: Interval) -> None:
    assert report.check(leases, prices, stored(leases, prices), window).is_equal


@given(closed_leases(), prices_strategy, st.lists(st.integers(0, 20_000_000), max_size=5))
def test_adjacent_windows_sum_to_the_whole(leases: list[rating.ClosedLease], prices: list[pricing.Price], points_ms: list[int]) -> None:
    lines = stored(leases, prices)
    whole = Interval(0, 20_000_000)
    parts = [row for window in cut(whole, points_ms) for row in report.rows(lines, window, [])]
    assert sum(row.amount_units for row in parts) == sum(row.amount_units for row in report.rows(lines, whole, []))
    assert sum(row.milli_gpu_ms for row in parts) == sum(row.milli_gpu_ms for row in report.rows(lines, whole, []))
