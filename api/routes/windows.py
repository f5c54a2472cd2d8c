"""Capacity reservations and maintenance windows.

Operators make and cancel them. A tenant's people see the reservations that are theirs, and somebody else's is missing; maintenance names
nodes, which are the operators' and finance's business.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Depends, Query, Request, Response

from api import answers, clock, pages, problem_codes, replays, routing
from api.permissions import Needs
from api.replays import IdempotencyKey
from api.routes.tenants import check_own
from store import calendar_changes
from store.calendar_changes import MaintenanceView, ReservationView, Window
from store.engine import Store
from store.errors import InvalidError
from store.identity import Principal, TenantByName
from store.recurrence import Recurrence
from terrace.models.common import Page
from terrace.models.scheduling import MaintenanceAnswer, MaintenanceCreate, Repeat, ReservationAnswer, ReservationCreate

router = routing.router("/v1", "calendar")

ReadsReservations = Annotated[Principal, Depends(Needs("reservations:read"))]
WritesReservations = Annotated[Principal, Depends(Needs("reservations:write"))]
ReadsMaintenance = Annotated[Principal, Depends(Needs("maintenance:read"))]
WritesMaintenance = Annotated[Principal, Depends(Needs("maintenance:write"))]
Past = Annotated[bool, Query(description="Those that are over or cancelled too.")]
_WINDOW = (
    "empty_window", "window_is_over", "window_too_far_ahead", "window_repeats_too_soon", "window_repeats_too_often", "unknown_time_zone",
    *problem_codes.CREATION,
)  # fmt: skip


@router.post(
    "/reservations",
    status_code=201,
    response_model=ReservationAnswer,
    responses=problem_codes.responses("reservation_exists", "tenant_not_found", "unknown_flavor", "over_capacity", *_WINDOW),
)
async def create_reservation(
    request: Request, principal: WritesReservations, sent: ReservationCreate, key: IdempotencyKey = None
) -> Response:
    """Set devices aside for a tenant in a window. Jobs of others start only where they end before it, or beside it."""
    command = calendar_changes.CreateReservation(
        clock.new_id("res"), sent.name, sent.tenant, sent.flavor, sent.gpus, _window(sent.start, sent.end, sent.repeat), clock.now_ms(),
        principal.user_id,
    )  # fmt: skip
    return await replays.create(request, principal, key=key, command=command, answer=_reservation)


@router.get(
    "/reservations", response_model=Page[ReservationAnswer], responses=problem_codes.responses("invalid_cursor", "tenant_not_found")
)
async def list_reservations(
    request: Request,
    principal: ReadsReservations,
    cursor: pages.Cursor = None,
    limit: pages.Limit = pages.LIMIT_DEFAULT,
    tenant: Annotated[str | None, Query(max_length=63, description="One tenant; otherwise all that the key may see.")] = None,
    past: Past = False,
) -> Any:
    """List capacity reservations in order of name; a tenant's people see theirs."""
    store: Store = request.app.state.store
    tenant_id = principal.tenant_id
    if tenant is not None:
        check_own(principal, tenant)
        tenant_id = (await store.read(TenantByName(tenant))).id
    found = await store.read(calendar_changes.Reservations(clock.now_ms(), tenant_id, past))
    return pages.cut(found, cursor, limit, key=lambda view: view.name, answer=_reservation)


@router.get("/reservations/{reservation}", response_model=ReservationAnswer, responses=problem_codes.responses("reservation_not_found"))
async def read_reservation(request: Request, principal: ReadsReservations, reservation: str) -> Any:
    """Return a capacity reservation, with what its tenant did not use of it."""
    return _reservation(await request.app.state.store.read(calendar_changes.ReservationByName(reservation, principal.tenant_id)))


@router.delete("/reservations/{reservation}", response_model=ReservationAnswer, responses=problem_codes.responses("reservation_not_found"))
async def cancel_reservation(request: Request, principal: WritesReservations, reservation: str) -> Any:
    """Cancel a capacity reservation: from now on it sets nothing aside. Again changes nothing."""
    command = calendar_changes.CancelReservation(reservation, clock.now_ms(), principal.user_id)
    return _reservation(await request.app.state.store.run(command))


@router.post(
    "/maintenance",
    status_code=201,
    response_model=MaintenanceAnswer,
    responses=problem_codes.responses("maintenance_exists", "unknown_node", *_WINDOW),
)
async def create_maintenance(
    request: Request, principal: WritesMaintenance, sent: MaintenanceCreate, key: IdempotencyKey = None
) -> Response:
    """Keep nodes free in a window: no job starts there that would not end before it. What runs there already is not stopped."""
    command = calendar_changes.CreateMaintenance(
        clock.new_id("mnt"), sent.name, sent.nodes, _window(sent.start, sent.end, sent.repeat), clock.now_ms(), principal.user_id
    )
    return await replays.create(request, principal, key=key, command=command, answer=_maintenance)


@router.get("/maintenance", response_model=Page[MaintenanceAnswer], responses=problem_codes.responses("invalid_cursor"))
async def list_maintenance(
    request: Request, principal: ReadsMaintenance, cursor: pages.Cursor = None, limit: pages.Limit = pages.LIMIT_DEFAULT, past: Past = False
) -> Any:
    """List maintenance windows in order of name."""
    found = await request.app.state.store.read(calendar_changes.MaintenanceWindows(clock.now_ms(), past))
    return pages.cut(found, cursor, limit, key=lambda view: view.name, answer=_maintenance)


@router.delete("/maintenance/{maintenance}", response_model=MaintenanceAnswer, responses=problem_codes.responses("maintenance_not_found"))
async def cancel_maintenance(request: Request, principal: WritesMaintenance, maintenance: str) -> Any:
    """Cancel a maintenance window. Again changes nothing."""
    command = calendar_changes.CancelMaintenance(maintenance, clock.now_ms(), principal.user_id)
    return _maintenance(await request.app.state.store.run(command))


def _window(start: datetime, end: datetime, repeat: Repeat | None) -> Window:
    return Window(clock.to_ms(start), clock.to_ms(end), None if repeat is None else _recurrence(repeat))


def _recurrence(repeat: Repeat) -> Recurrence:
    try:
        ZoneInfo(repeat.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = f"repeat.time_zone: there is no time zone {repeat.time_zone!r}; Asia/Ho_Chi_Minh and UTC are names of some"
        raise InvalidError("unknown_time_zone", message, field="repeat.time_zone") from error
    return Recurrence(repeat.every_days, clock.to_ms(repeat.until), repeat.time_zone)


def _span(window: Window) -> dict[str, Any]:
    recurrence = window.recurrence
    repeat = None
    if recurrence is not None:
        until = answers.moment(recurrence.until_ms)
        repeat = {"every_days": recurrence.every_days, "until": until, "time_zone": recurrence.time_zone}
    return {"start": answers.moment(window.start_ms), "end": answers.moment(window.end_ms), "repeat": repeat}


def _reservation(view: ReservationView) -> dict[str, Any]:
    fields = asdict(view)
    del fields["window"]
    moments = {name: answers.moment(fields.pop(f"{name}_ms")) for name in ("created_at", "cancelled_at", "counted_until")}
    return fields | moments | _span(view.window)


def _maintenance(view: MaintenanceView) -> dict[str, Any]:
    fields = asdict(view)
    del fields["window"]
    moments = {name: answers.moment(fields.pop(f"{name}_ms")) for name in ("created_at", "cancelled_at")}
    return fields | moments | _span(view.window)
