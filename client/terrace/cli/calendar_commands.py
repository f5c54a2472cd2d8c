"""`terrace ops reservation`, `maintenance` and `policy`: what is set aside when, when nodes rest, and how the scheduler chooses.

Each fetches and hands the answer to the session's output. A moment without an offset is in the window's time zone where one is named, else
in this machine's; a window recurs at the same local time. Durations may be 0 here, which the policy understands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from terrace import units
from terrace.cli import moments
from terrace.cli.moments import Direction
from terrace.cli.session import Session
from terrace.models.scheduling import Placement, PolicySet, Repeat, Victims
from terrace.sdk.errors import InputError

ReservationName = Annotated[str, typer.Argument(metavar="RESERVATION", help="Name of a capacity reservation.")]
MaintenanceName = Annotated[str, typer.Argument(metavar="WINDOW", help="Name of a maintenance window.")]
Past = Annotated[bool, typer.Option("--past", help="Those that are over or cancelled too.")]


@dataclass
class WindowOptions:
    """A span of time that may recur."""

    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Start, such as 2026-12-01T20:00; or 2h from now.")] = None
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, not included.")] = None
    every: Annotated[int | None, typer.Option(metavar="DAYS", help="Again every so many days at the same local time.")] = None
    until: Annotated[str | None, typer.Option(metavar="TIME", help="The last one begins before.")] = None
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="IANA name of the local time. (default: UTC)")] = None

    def read(self) -> dict[str, Any]:
        """Return start, end and repeat as the SDK takes them."""
        if self.start is None or self.end is None:
            raise InputError("from" if self.start is None else "to", "a window needs --from and --to")
        if (self.every is None) != (self.until is None):
            raise InputError("every", "--every and --until stand together")
        repeat = None
        if self.every is not None and self.until is not None:
            until = self._moment("until", self.until)
            repeat = Repeat.model_validate({"every_days": self.every, "until": until, "time_zone": self.time_zone or "UTC"})
        return {"start": self._moment("from", self.start), "end": self._moment("to", self.end), "repeat": repeat}

    def _moment(self, field: str, text: str) -> datetime:
        found = moments.read(field, text, Direction.AHEAD) or datetime.max
        if self.time_zone is None:
            return found
        try:
            zone = ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InputError("time-zone", f"there is no time zone {self.time_zone!r}; Asia/Ho_Chi_Minh is the name of one") from error
        try:
            plain = datetime.fromisoformat(text)
        except ValueError:
            return found
        return plain.replace(tzinfo=zone) if plain.tzinfo is None else plain


def create_reservation(
    session: Session,
    name: ReservationName,
    tenant: Annotated[str, typer.Option(help="For this tenant and its projects.")],
    flavor: Annotated[str, typer.Option(help="Kind of GPU.")],
    gpus: Annotated[int, typer.Option(help="How many whole GPUs.")],
    window: WindowOptions,
) -> None:
    """Set GPUs aside for a tenant in a window. Jobs of others start only where they end before it, or beside it."""
    session.output.reservation(session.client.create_reservation(name, tenant=tenant, flavor=flavor, gpus=gpus, **window.read()))


def cancel_reservation(session: Session, name: ReservationName) -> None:
    """Cancel a capacity reservation; doing it again changes nothing."""
    session.output.reservation(session.client.cancel_reservation(name))


def list_reservations(
    session: Session,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Name of the tenant.")] = None,
    is_past_shown: Past = False,
) -> None:
    """List capacity reservations; a tenant's people see theirs."""
    session.output.reservations(session.client.reservations(tenant=tenant, is_past_shown=is_past_shown))


def create_maintenance(
    session: Session,
    name: MaintenanceName,
    node: Annotated[list[str], typer.Option(help="A node that rests; repeat for more.")],
    window: WindowOptions,
) -> None:
    """Keep nodes free in a window: no job starts there that would not end before it."""
    session.output.maintenance(session.client.create_maintenance(name, nodes=node, **window.read()))


def cancel_maintenance(session: Session, name: MaintenanceName) -> None:
    """Cancel a maintenance window; doing it again changes nothing."""
    session.output.maintenance(session.client.cancel_maintenance(name))


def list_maintenance(session: Session, is_past_shown: Past = False) -> None:
    """List maintenance windows."""
    session.output.maintenance_windows(session.client.maintenance(is_past_shown=is_past_shown))


def get_policy(session: Session) -> None:
    """Show the scheduling policy in force."""
    session.output.policy(session.client.policy())


def set_policy(
    session: Session,
    fair_sharing: Annotated[
        bool | None,
        typer.Option("--fair-sharing/--no-fair-sharing", help="Serve the lower weighted share first, or not.", show_default=False),
    ] = None,
    half_life: Annotated[str | None, typer.Option(metavar="DURATION", help="After it what was borrowed counts half; 0: no past.")] = None,
    backfill_depth: Annotated[int | None, typer.Option(metavar="N", help="Blocked jobs per GPU model that hold a start time.")] = None,
    min_runtime: Annotated[str | None, typer.Option(metavar="DURATION", help="How long a job runs before it can be a victim.")] = None,
    grace: Annotated[str | None, typer.Option(metavar="DURATION", help="Between the notice to a victim and its release.")] = None,
    victims: Annotated[Victims | None, typer.Option(help="Who of one priority goes first.")] = None,
    default_limit: Annotated[str | None, typer.Option(metavar="DURATION", help="Time limit of jobs that name none.")] = None,
    nomination_timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="How long a place is held beyond the grace.")] = None,
    placement: Annotated[Placement | None, typer.Option(help="Where slices go.")] = None,
    forecast_depth: Annotated[int | None, typer.Option(metavar="N", help="Classes of jobs that get a forecast start.")] = None,
    preemptions_per_hour: Annotated[int | None, typer.Option(metavar="N", help="Victims that a pool may lose within an hour.")] = None,
    default: Annotated[list[str] | None, typer.Option(metavar="FIELD", help="Give a field its default back; repeat for more.")] = None,
) -> None:
    """Change the scheduling policy; what is not named stays."""
    durations = {
        "fair_share_half_life_ms": ("half-life", half_life),
        "min_runtime_ms": ("min-runtime", min_runtime),
        "preemption_grace_ms": ("grace", grace),
        "default_limit_ms": ("default-limit", default_limit),
        "nomination_timeout_ms": ("nomination-timeout", nomination_timeout),
    }
    given: dict[str, object] = {name: _duration_ms(field, text) for name, (field, text) in durations.items() if text is not None}
    others = {
        "fair_sharing": fair_sharing,
        "backfill_depth": backfill_depth,
        "victims": victims,
        "placement": placement,
        "forecast_depth": forecast_depth,
        "preemptions_per_hour": preemptions_per_hour,
    }
    given |= {name: value for name, value in others.items() if value is not None}
    for name in default or []:
        if name not in PolicySet.model_fields:
            raise InputError("default", f"there is no field {name!r}", limit=sorted(PolicySet.model_fields))
        if name in given:
            raise InputError("default", f"{name} is set by another option")
        given[name] = None
    if not given:
        raise InputError("default", "nothing to change; name a field, such as --no-fair-sharing")
    session.output.policy(session.client.set_policy(**given))


def _duration_ms(field: str, text: str) -> int:
    return 0 if text == "0" else units.duration_seconds(field, text) * units.MILLI
