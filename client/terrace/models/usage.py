"""Usage reports: what leases cost, grouped, with the proof that nothing is missing.

Owns the wire shapes. Quantities are milli-GPU milliseconds, money is the currency's smallest accounted units; clients format, never round.
"""

from __future__ import annotations

from terrace.models.common import Answer, Timestamp


class UsageRow(Answer):
    """One group of the report. Fields that are not grouped by are null. `milli_gpu_ms` is quantity, `amount_units` is money."""

    tenant: str | None = None
    project: str | None = None
    user: str | None = None
    flavor: str | None = None
    job_id: str | None = None
    leases: int
    milli_gpu_ms: int
    amount_units: int
    currency: str


class UsageCheck(Answer):
    """The same totals computed from the leases themselves; the report is right when both agree to the unit.

    `unrated_leases` have ended and get their lines within a moment; `open_leases` still run and are in no report yet.
    """

    leases: int
    lease_milli_gpu_ms: int
    line_milli_gpu_ms: int
    lease_amount_units: int
    line_amount_units: int
    unrated_leases: int
    open_leases: int = 0
    is_equal: bool


class UsageReport(Answer):
    """Usage in [from, to), by closed leases."""

    start: Timestamp
    end: Timestamp
    group_by: list[str]
    rows: list[UsageRow]
    total_milli_gpu_ms: int
    total_amount_units: int
    currency: str
    is_simulated: bool = False  # some of it was on a model of which this fleet has simulated GPUs
    check: UsageCheck
