"""Usage reports over rated leases, as JSON or CSV.

A tenant sees its own; finance and operators see all, or one tenant by name. The numbers come from billing/calc; this module names them.
Running leases are not in a report: their count is stated, so that nobody takes a report for the whole truth of an hour still under way.
"""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from api import clock, problem_codes, routing
from api.permissions import Needs
from billing.calc import report
from domain.intervals import Interval
from domain.money import Currency, Money
from store.engine import Store
from store.errors import InvalidError, NotFoundError
from store.identity import Principal, TenantByName
from store.usage import ReportData, UsageBetween
from terrace.models.common import Timestamp
from terrace.models.usage import UsageCheck, UsageReport, UsageRow

router = routing.router("/v1/usage", "usage")

DAY_MS = 86_400_000
WINDOW_DAYS_MAXIMUM = 400
WINDOW_DAYS_DEFAULT = 31
GROUPS_LENGTH_MAXIMUM = 100
DEFAULT_GROUPS = "tenant,project,flavor"
CSV_COLUMNS = ("tenant", "project", "user", "flavor", "job_id", "leases", "milli_gpu_ms", "amount_units", "currency", "amount")

Reads = Annotated[Principal, Depends(Needs("usage:read"))]


@router.get(
    "",
    response_model=UsageReport,
    responses=problem_codes.responses(
        "tenant_not_found",
        "empty_window",
        "window_too_long",
        "invalid_groups",
        "report_too_large",
        also={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    ),
)
async def usage_report(
    request: Request,
    principal: Reads,
    start: Annotated[Timestamp | None, Query(alias="from", description="Start of the window; default: 31 days before its end.")] = None,
    end: Annotated[Timestamp | None, Query(alias="to", description="End of the window, not included; default: now.")] = None,
    by: Annotated[
        str, Query(max_length=GROUPS_LENGTH_MAXIMUM, description="Comma-separated: tenant, project, user, flavor, job.")
    ] = DEFAULT_GROUPS,
    tenant: Annotated[str | None, Query(max_length=63, description="One tenant; finance and operators only.")] = None,
) -> Any:
    """Report usage and cost of ended leases in [from, to), grouped, with the proof against the leases."""
    store: Store = request.app.state.store
    window, groups = _window(start, end), _groups(by)
    tenant_id = await _whose(store, principal, tenant)
    currency = Currency.from_code(request.app.state.settings.currency)
    data = await store.read(UsageBetween(window, currency.code, tenant_id))
    catalog = await request.app.state.catalogs.fleet(is_fresh=True)
    simulated = {name for name, flavor in catalog.flavors.items() if flavor.gpu_model in catalog.simulated_models}
    answer = await asyncio.to_thread(_report, data, window, groups, currency, simulated)
    if "text/csv" in request.headers.get("accept", ""):
        return Response(await asyncio.to_thread(_csv, answer, currency), media_type="text/csv; charset=utf-8")
    return Response(await asyncio.to_thread(answer.model_dump_json), media_type="application/json")


async def _whose(store: Store, principal: Principal, tenant: str | None) -> str | None:
    if tenant is None or tenant == principal.tenant:
        return principal.tenant_id
    if principal.tenant_id is not None:
        raise NotFoundError("tenant_not_found", f"there is no tenant {tenant!r}", field="tenant")
    return (await store.read(TenantByName(tenant))).id


def _window(start: datetime | None, end: datetime | None) -> Interval:
    end_ms = clock.to_ms(end) if end is not None else clock.now_ms()
    start_ms = clock.to_ms(start) if start is not None else end_ms - WINDOW_DAYS_DEFAULT * DAY_MS
    if start_ms >= end_ms:
        raise InvalidError("empty_window", "from: must lie before `to`", field="from", limit=clock.rfc3339(end_ms))
    if end_ms - start_ms > WINDOW_DAYS_MAXIMUM * DAY_MS:
        raise InvalidError(
            "window_too_long", f"from: a report covers at most {WINDOW_DAYS_MAXIMUM} days", field="from", limit=WINDOW_DAYS_MAXIMUM
        )
    return Interval(start_ms, end_ms)


def _groups(by: str) -> list[report.Group]:
    known = [group.value for group in report.Group]
    names = [name.strip() for name in by.split(",") if name.strip()]
    unknown = sorted(set(names) - set(known))
    if unknown or len(set(names)) != len(names):
        what = f"{', '.join(unknown)} is not one of {', '.join(known)}" if unknown else "each group may be named once"
        raise InvalidError("invalid_groups", f"by: {what}", field="by", limit=known)
    return [report.Group(name) for name in names]


def _report(data: ReportData, window: Interval, groups: list[report.Group], currency: Currency, simulated: set[str]) -> UsageReport:
    rows = [_row(row, groups, data.names, currency) for row in report.rows(data.lines, window, groups)]
    check = report.check(data.leases, data.prices, data.lines, window)
    return UsageReport.model_validate(
        {
            "start": clock.rfc3339(window.start_ms),
            "end": clock.rfc3339(window.end_ms),
            "group_by": [group.value for group in groups],
            "rows": sorted(rows, key=lambda row: tuple(getattr(row, _field(group)) or "" for group in groups)),
            "total_milli_gpu_ms": sum(row.milli_gpu_ms for row in rows),
            "total_amount_units": sum(row.amount_units for row in rows),
            "currency": currency.code,
            "is_simulated": any(line.flavor in simulated for line in data.lines),
            "check": UsageCheck(
                leases=check.leases,
                lease_milli_gpu_ms=check.lease_milli_gpu_ms,
                line_milli_gpu_ms=check.line_milli_gpu_ms,
                lease_amount_units=check.lease_amount_units,
                line_amount_units=check.line_amount_units,
                unrated_leases=data.unrated_leases,
                open_leases=data.open_leases,
                is_equal=check.is_equal,
            ),
        }
    )


def _field(group: report.Group) -> str:
    return "job_id" if group is report.Group.JOB else group.value


def _row(row: report.Row, groups: list[report.Group], names: dict[str, str], currency: Currency) -> UsageRow:
    keys = {_field(group): names.get(value or "", value) for group, value in zip(groups, row.key, strict=True)}
    return UsageRow(
        leases=row.leases,
        milli_gpu_ms=row.milli_gpu_ms,
        amount_units=row.amount_units,
        currency=currency.code,
        **keys,
    )


def _csv(answer: UsageReport, currency: Currency) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for row in answer.rows:
        amount = Money(row.amount_units, currency).to_decimal_text()
        writer.writerow(row.model_dump() | {"amount": amount})
    return text.getvalue()
