"""Windows that lie far ahead come into a running scheduler's sight in time, without anybody changing anything."""

from __future__ import annotations

from store.calendar import HORIZON_MS
from store.calendar_changes import CreateReservation, Window
from store.engine import Store
from tests.support.fleet import DAY_MS, MINUTE_MS, T0_MS, Fleet


async def test_reservation_beyond_the_horizon_is_seen_when_its_time_comes(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 4}, quota=4)
    await world.add_tenant("zeta", 4)
    start_ms = T0_MS + HORIZON_MS + 9 * DAY_MS
    window = Window(start_ms, start_ms + 60 * MINUTE_MS, None)
    await store.run(CreateReservation("res_1", "contest", "zeta", "h200", 4, window, world.now_ms))
    await world.settle()

    await world.pass_time(start_ms - T0_MS - 60 * MINUTE_MS)
    long = await world.submit(gpus=2, limit_ms=120 * MINUTE_MS)
    await world.settle()

    assert (await world.job(long)).answer.reason_code == "capacity_reserved"
