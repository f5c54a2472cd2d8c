"""Capacity reservations and maintenance windows in the live service: devices are there when the window begins, and the use is counted."""

from __future__ import annotations

from billing.service.reservations import count_once
from executors.fake import Script
from store import tables
from store.calendar_changes import CancelReservation, CreateMaintenance, CreateReservation, Window
from store.engine import Store
from store.recurrence import Recurrence
from tests.support.fleet import DAY_MS, MINUTE_MS, T0_MS, Fleet

SOON_MS = T0_MS + 20 * MINUTE_MS


async def reserved(store: Store, *, gpus: int = 4, recurrence: Recurrence | None = None) -> Fleet:
    """Return a world of 4 GPUs for two tenants, in which GPUs are set aside for `zeta` for ten minutes in twenty minutes."""
    world = await Fleet(store).begin(nodes={"node-a": 4}, quota=4)
    await world.add_tenant("zeta", 4)
    window = Window(SOON_MS, SOON_MS + 10 * MINUTE_MS, recurrence)
    await store.run(CreateReservation("res_1", "contest", "zeta", "h200", gpus, window, world.now_ms))
    return world


async def test_job_of_another_tenant_starts_before_a_reservation_only_when_it_ends_before_it(store: Store) -> None:
    world = await reserved(store)
    short = await world.submit(gpus=2, limit_ms=10 * MINUTE_MS)
    long = await world.submit(gpus=2, limit_ms=30 * MINUTE_MS)
    await world.settle()

    assert [await world.state(job) for job in (short, long)] == ["running", "queued"]
    answer = (await world.job(long)).answer
    assert answer.reason_code == "capacity_reserved"
    assert "contest" not in (answer.reason_data or "")  # the name is another tenant's business


async def test_tenant_of_a_reservation_starts_in_it_and_others_after_it(store: Store) -> None:
    world = await reserved(store)
    await world.pass_time(20 * MINUTE_MS)
    theirs = await world.submit(tenant="zeta", gpus=4, limit_ms=5 * MINUTE_MS)
    other = await world.submit(gpus=4, limit_ms=5 * MINUTE_MS)
    await world.settle()
    assert [await world.state(job) for job in (theirs, other)] == ["running", "queued"]

    await world.pass_time(10 * MINUTE_MS)
    await world.settle()

    assert [await world.state(job) for job in (theirs, other)] == ["succeeded", "running"]


async def test_cancelled_reservation_sets_nothing_aside(store: Store) -> None:
    world = await reserved(store)
    long = await world.submit(gpus=2, limit_ms=30 * MINUTE_MS)
    await world.settle()
    await store.run(CancelReservation("contest", world.now_ms))
    await world.settle()

    assert await world.state(long) == "running"


async def test_reservation_that_recurs_holds_its_devices_every_day(store: Store) -> None:
    world = await reserved(store, recurrence=Recurrence(1, T0_MS + 3 * DAY_MS))
    await world.pass_time(DAY_MS)
    long = await world.submit(gpus=2, limit_ms=30 * MINUTE_MS)
    await world.settle()

    assert (await world.job(long)).answer.reason_code == "capacity_reserved"


async def test_nothing_starts_on_a_node_that_would_run_into_its_maintenance(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 4})
    await store.run(CreateMaintenance("mnt_1", "firmware", ["node-a"], Window(SOON_MS, SOON_MS + MINUTE_MS, None), world.now_ms))
    short, long = await world.submit(limit_ms=10 * MINUTE_MS), await world.submit(limit_ms=30 * MINUTE_MS)
    await world.settle()
    assert [await world.state(job) for job in (short, long)] == ["running", "queued"]

    await world.pass_time(21 * MINUTE_MS)
    await world.settle()

    assert await world.state(long) == "running"


async def test_unused_part_of_a_window_is_counted_once_when_everything_in_it_is_released(store: Store) -> None:
    world = await reserved(store)
    await world.pass_time(20 * MINUTE_MS)
    await world.submit(tenant="zeta", gpus=1, script=Script(duration_ms=15 * MINUTE_MS), limit_ms=20 * MINUTE_MS)
    await world.settle()
    await world.pass_time(11 * MINUTE_MS)
    assert await count_once(store, now_ms=world.now_ms) == 0
    await world.pass_time(5 * MINUTE_MS)
    await world.settle()

    assert [await count_once(store, now_ms=world.now_ms) for _ in range(2)] == [1, 0]

    (row,) = await world.rows(tables.CapacityReservation)
    counted = (row["set_aside_milli_gpu_ms"], row["unused_milli_gpu_ms"], row["counted_until_ms"])
    assert counted == (4_000 * 10 * MINUTE_MS, 3_000 * 10 * MINUTE_MS, SOON_MS + 10 * MINUTE_MS)
