"""Between the store's flat rows and the values of billing/calc: one place, both directions, no arithmetic.

Called by the billing loop and by the API's usage report. What a field means is said where it is defined.
"""

from __future__ import annotations

from billing.calc import pricing, rating, report
from domain.intervals import Interval
from domain.states import FailureClass, LeaseEndCause
from store import usage


def closed_lease(row: usage.EndedLease) -> rating.ClosedLease:
    """Return the lease as rating knows it; charged from the grant to the end."""
    return rating.ClosedLease(
        id=row.id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        user_id=row.user_id,
        job_id=row.job_id,
        flavor=row.flavor,
        slices=row.slices,
        milli_gpu=row.milli_gpu,
        charged=Interval(row.granted_at_ms, row.ended_at_ms),
        end_cause=LeaseEndCause(row.end_cause),
        failure_class=FailureClass(row.failure_class) if row.failure_class else None,
    )


def price(row: usage.PriceRow) -> pricing.Price:
    """Return a row of the price book as pricing knows it."""
    return pricing.Price(valid_from_ms=row.valid_from_ms, id=row.id, flavor=row.flavor, units_per_hour=row.units_per_hour)


def line_row(line: rating.Line, currency: str) -> usage.UsageLineRow:
    """Return a rated line as it is stored."""
    lease = line.lease
    return usage.UsageLineRow(
        id=line.id,
        kind=line.kind.value,
        lease_id=lease.id,
        tenant_id=lease.tenant_id,
        project_id=lease.project_id,
        user_id=lease.user_id,
        job_id=lease.job_id,
        flavor=lease.flavor,
        start_ms=line.interval.start_ms,
        end_ms=line.interval.end_ms,
        milli_gpu=lease.milli_gpu,
        milli_gpu_ms=line.milli_gpu_ms,
        price_id=line.price_id,
        units_per_hour=line.units_per_hour,
        slices=lease.slices,
        currency=currency,
        amount_units=line.amount_units,
    )


def report_line(row: usage.UsageLineRow) -> report.ReportLine:
    """Return a stored line as reports know it."""
    return report.ReportLine(
        kind=rating.LineKind(row.kind),
        lease_id=row.lease_id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        user_id=row.user_id,
        job_id=row.job_id,
        flavor=row.flavor,
        interval=Interval(row.start_ms, row.end_ms),
        slices=row.slices,
        milli_gpu=row.milli_gpu,
        units_per_hour=row.units_per_hour,
        amount_units=row.amount_units,
    )
