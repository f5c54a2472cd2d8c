"""Capacity reservations and maintenance: what is made is in the next snapshot, over capacity is refused, and what is cancelled is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler.decision.snapshot import CapacityReservation, MaintenanceWindow, Policy, Snapshot
from store import calendar_changes
from store.calendar_changes import AHEAD_DAYS_MAXIMUM, DAY_MS, OCCURRENCES_MAXIMUM, CreateMaintenance, CreateReservation, Window
from store.errors import ConflictError, RefusalError
from store.recurrence import Recurrence
from store.scheduling import LoadSnapshot
from tests.store.world import HOUR_MS, T0_MS, World
from tests.support.statements import change, rows

HO_CHI_MINH = "Asia/Ho_Chi_Minh"


def window(start: int, end: int, recurrence: Recurrence | None = None) -> Window:
    """Return a window by hours from now."""
    return Window(T0_MS + start * HOUR_MS, T0_MS + end * HOUR_MS, recurrence)


def repeated(days: int, times: int, zone: str = "UTC") -> Recurrence:
    return Recurrence(days, T0_MS + days * times * DAY_MS, zone)


def reservation(name: str, gpus: int, on: Window, **fields: Any) -> CreateReservation:
    given = {"id": f"res_{name}", "name": name, "tenant": "acme", "flavor": "h200", "gpus": gpus, "window": on, "now_ms": T0_MS}
    return CreateReservation(**{**given, **fields})


def maintenance(name: str, on: Window, nodes: tuple[str, ...] = ("a",)) -> CreateMaintenance:
    return CreateMaintenance(f"mnt_{name}", name, nodes, on, T0_MS)


def snapshot(world: World) -> Snapshot:
    found: Snapshot = world.read(LoadSnapshot(world.now_ms, Policy())).snapshot
    return found


def refusal(world: World, command: Any) -> RefusalError:
    counts = "SELECT (SELECT count(*) FROM capacity_reservation), (SELECT count(*) FROM maintenance_window), (SELECT count(*) FROM event)"
    before = rows(world.store, counts)
    with pytest.raises(RefusalError) as error:
        world.run(command)
    assert rows(world.store, counts) == before
    return error.value


@pytest.fixture
def acme(world: World) -> World:
    """A tenant, and a fleet of 8."""
    world.tenant("acme")
    world.node("a")
    return world


def test_windows_are_in_the_next_snapshot_until_they_are_cancelled(acme: World) -> None:
    acme.run(reservation("course", 2, window(1, 2)))
    acme.run(maintenance("firmware", window(3, 4)))
    seen = snapshot(acme)
    reserved = CapacityReservation("course", "ten_acme", "h200", 2_000, T0_MS + HOUR_MS, T0_MS + 2 * HOUR_MS)
    assert tuple(seen.capacity_reservations) == (reserved,)
    assert tuple(seen.maintenance_windows) == (MaintenanceWindow("firmware", ("a",), T0_MS + 3 * HOUR_MS, T0_MS + 4 * HOUR_MS),)
    acme.run(calendar_changes.CancelReservation("course", T0_MS))
    acme.run(calendar_changes.CancelMaintenance("firmware", T0_MS))
    seen = snapshot(acme)
    assert (tuple(seen.capacity_reservations), tuple(seen.maintenance_windows)) == ((), ())


def test_recurring_window_comes_at_the_same_local_time(acme: World) -> None:
    start = datetime(2027, 3, 27, 19, 0, tzinfo=UTC)  # a day before Berlin changes its clocks
    first_ms = int(start.timestamp() * 1_000)
    acme.now_ms = first_ms - HOUR_MS
    on = Window(first_ms, first_ms + HOUR_MS, Recurrence(1, first_ms + 2 * DAY_MS, "Europe/Berlin"))
    acme.run(reservation("evening", 2, on, now_ms=acme.now_ms))
    begins = [datetime.fromtimestamp(item.start_ms / 1_000, UTC).hour for item in snapshot(acme).capacity_reservations]
    assert begins == [19, 18, 18]


def test_as_much_as_the_fleet_has_can_be_set_aside_and_no_more(acme: World) -> None:
    acme.run(reservation("one", 5, window(1, 3)))
    acme.run(reservation("beside", 3, window(2, 4)))
    error = refusal(acme, reservation("more", 1, window(2, 5)))
    assert isinstance(error, ConflictError)
    expected = {
        "field": "gpus", "limit": 8, "asked_milli_gpu": 9_000, "capacity_milli_gpu": 8_000, "at_ms": T0_MS + 2 * HOUR_MS,
        "beside": ["beside", "one"],
    }  # fmt: skip
    assert (error.code, error.data) == ("over_capacity", expected)
    assert "from 2027-01-15T10:00:00+00:00 on, more would set aside 9 of h200 together with beside, one; the fleet has 8" in error.message


def test_windows_that_only_touch_share_devices(acme: World) -> None:
    acme.run(reservation("once", 8, window(2, 3)))
    acme.run(reservation("daily", 8, window(1, 2, repeated(1, 2))))
    assert [item.name for item in snapshot(acme).capacity_reservations] == ["daily", "daily", "once"]


def test_what_others_set_aside_too_much_after_a_device_failed_is_not_the_new_ones_fault(acme: World) -> None:
    acme.run(reservation("all", 8, window(5, 6)))
    change(acme.store, "UPDATE device SET health = 'faulty' WHERE id = 'GPU-a-0'")
    acme.run(reservation("daily", 7, window(1, 2, repeated(1, 2))))
    assert refusal(acme, reservation("beside", 1, window(5, 6))).data["limit"] == 7


def test_one_that_begins_within_the_new_one_counts(acme: World) -> None:
    acme.run(reservation("later", 8, window(5, 6)))
    assert refusal(acme, reservation("long", 1, window(1, 9))).data["at_ms"] == T0_MS + 5 * HOUR_MS


def test_repetitions_count_on_both_sides(acme: World) -> None:
    acme.run(reservation("daily", 5, window(1, 2, repeated(1, 30))))
    weekly = reservation("weekly", 4, window(24 * 7 + 1, 24 * 7 + 2, repeated(7, 3)))
    assert refusal(acme, weekly).data["at_ms"] == T0_MS + 7 * DAY_MS + HOUR_MS
    acme.run(calendar_changes.CancelReservation("daily", T0_MS))
    acme.run(weekly)


def test_other_models_do_not_count(acme: World) -> None:
    acme.run(reservation("one", 8, window(1, 2)))
    assert refusal(acme, reservation("none-there", 1, window(1, 2), flavor="l40s")).data["limit"] == 0


def test_listing_shows_what_is_ahead_and_the_rest_on_demand(acme: World) -> None:
    acme.run(reservation("soon", 1, window(1, 2)))
    acme.run(reservation("daily", 1, window(1, 2, repeated(1, 5))))
    acme.run(reservation("cancelled", 1, window(1, 2)))
    acme.run(calendar_changes.CancelReservation("cancelled", T0_MS))
    later_ms = T0_MS + 3 * HOUR_MS
    assert [item.name for item in acme.read(calendar_changes.Reservations(T0_MS))] == ["daily", "soon"]
    assert [item.name for item in acme.read(calendar_changes.Reservations(later_ms))] == ["daily"]
    assert len(acme.read(calendar_changes.Reservations(later_ms, is_past_shown=True))) == 3


def test_other_tenants_reservation_is_missing(acme: World) -> None:
    acme.tenant("other")
    acme.run(reservation("course", 1, window(1, 2)))
    assert acme.read(calendar_changes.Reservations(T0_MS, "ten_other")) == ()
    with pytest.raises(RefusalError) as error:
        acme.read(calendar_changes.ReservationByName("course", "ten_other"))
    assert error.value.code == "reservation_not_found"


AHEAD = T0_MS + (AHEAD_DAYS_MAXIMUM + 1) * DAY_MS
REFUSED: dict[str, tuple[Any, str, str]] = {
    "an end before the start": (reservation("x", 1, window(2, 2)), "empty_window", "end"),
    "a window that is over": (reservation("x", 1, window(-3, 0)), "window_is_over", "end"),
    "a window in another age": (reservation("x", 1, Window(AHEAD, AHEAD + 1, None)), "window_too_far_ahead", "end"),
    "repetitions that meet": (reservation("x", 1, window(0, 24, repeated(1, 3))), "window_repeats_too_soon", "repeat.every_days"),
    "a repetition that ended before": (reservation("x", 1, window(1, 2, Recurrence(1, T0_MS, "UTC"))), "empty_window", "repeat.until"),
    "too many repetitions": (
        reservation("x", 1, window(1, 2, repeated(1, OCCURRENCES_MAXIMUM + 1))), "window_repeats_too_often", "repeat.until",
    ),
    "nobody's tenant": (reservation("x", 1, window(1, 2), tenant="no"), "tenant_not_found", "tenant"),
    "no such flavor": (reservation("x", 1, window(1, 2), flavor="h999"), "unknown_flavor", "flavor"),
    "a taken name": (reservation("taken", 1, window(1, 2)), "reservation_exists", "name"),
    "more than the fleet": (reservation("x", 9, window(1, 2)), "over_capacity", "gpus"),
    "maintenance of no node": (maintenance("x", window(1, 2), ("a", "b")), "unknown_node", "nodes[1]"),
    "maintenance of a taken name": (maintenance("taken", window(1, 2)), "maintenance_exists", "name"),
    "maintenance that is over": (maintenance("x", window(-3, -2)), "window_is_over", "end"),
}  # fmt: skip


@pytest.mark.parametrize(("command", "code", "field"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_with_its_field(acme: World, command: Any, code: str, field: str) -> None:
    acme.run(reservation("taken", 1, window(10, 11)))
    acme.run(maintenance("taken", window(10, 11)))
    error = refusal(acme, command)
    assert (error.code, error.data["field"]) == (code, field)


def test_daily_window_for_a_year_is_taken(acme: World) -> None:
    acme.run(reservation("year", 1, window(1, 23, repeated(1, 366, HO_CHI_MINH))))
    assert isinstance(refusal(acme, reservation("full", 8, window(24 * 300, 24 * 301))), ConflictError)
