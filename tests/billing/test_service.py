"""Leases that ended become lines, once, whatever happens in between, and the lines add up to the leases."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from prometheus_client import REGISTRY

from billing.calc import report
from billing.service import BillingSettings, run
from billing.service.loop import Aside, rate_once
from domain.intervals import Interval
from executors.fake import Script
from store import fleet, tables
from store.commands import Command
from store.engine import Store
from store.usage import StoreLines, UsageBetween
from tests.support.fleet import T0_MS, Fleet
from tests.support.hooked import HookedStore, KilledError, KillPoint
from tests.support.statements import Statement

HOUR_MS = 3_600_000
H200_PER_HOUR = 3_500_000  # as it is seeded, in millionths of a dollar
USD = BillingSettings()
EVER = Interval(0, T0_MS + 1_000 * HOUR_MS)


async def ended(store: Store, *scripts: Script, gpus: int = 1, **job: Any) -> Fleet:
    """Return a world in which jobs with these scripts have run to their ends, one attempt each."""
    world = await Fleet(store).begin()
    jobs = [await world.submit(gpus=gpus, attempts=1, limit_ms=10 * HOUR_MS, script=script, **job) for script in scripts]
    await world.settle()
    await world.until_ended(*jobs, step_ms=HOUR_MS)
    return world


async def rate(world: Fleet, settings: BillingSettings = USD, *, store: Store | None = None) -> int:
    """Rate one batch now."""
    return await rate_once(store or world.store, settings, now_ms=world.now_ms)


async def lines(world: Fleet) -> list[dict[str, Any]]:
    """Return the lines in order of time."""
    return sorted(await world.rows(tables.UsageLine), key=lambda row: (row["start_ms"], row["id"]))


async def totals(world: Fleet, window: Interval = EVER, currency: str = "USD") -> tuple[int, int]:
    """Return (milli-GPU-milliseconds, units) of a report over a window; AssertionError when its proof against the leases fails."""
    data = await world.store.read(UsageBetween(window, currency))
    assert report.check(data.leases, data.prices, data.lines, window).is_equal
    (row,) = report.rows(data.lines, window, []) or (report.Row((), 0, 0, 0),)
    return row.milli_gpu_ms, row.amount_units


async def test_ended_leases_are_rated_once_and_a_rerun_changes_nothing(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS), Script(duration_ms=2 * HOUR_MS), gpus=2)

    rated = [await rate(world) for _ in range(3)]
    before = [await world.rows(table) for table in (tables.UsageLine, tables.Lease)]
    await rate(world)

    assert (rated, before) == ([2, 0, 0], [await world.rows(table) for table in (tables.UsageLine, tables.Lease)])
    assert [line["amount_units"] for line in await lines(world)] == [2 * H200_PER_HOUR, 4 * H200_PER_HOUR]
    assert await totals(world) == (2_000 * 3 * HOUR_MS, 6 * H200_PER_HOUR)
    await world.check()


async def test_running_leases_have_no_lines_and_are_counted(store: Store) -> None:
    world = await Fleet(store).begin()
    await world.submit()
    await world.settle()

    assert (await rate(world), await lines(world)) == (0, [])
    data = await store.read(UsageBetween(EVER, "USD"))
    assert (data.open_leases, data.unrated_leases) == (1, 0)


async def test_lease_that_ended_is_rated_before_its_slices_are_free(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(duration_ms=60_000, idle_ms=HOUR_MS))
    await world.settle()
    await world.pass_time(60_000)
    await world.settle()

    assert (await rate(world), (await world.leases(job))[0]["released_at_ms"]) == (1, None)
    await world.until_ended(job, step_ms=HOUR_MS)

    assert (await rate(world), await totals(world)) == (0, (1_000 * 60_000, 58_333))


async def test_two_that_rate_at_once_rate_every_lease_once(store: Store) -> None:
    world = await ended(store, *[Script(duration_ms=HOUR_MS)] * 4)

    rated = await asyncio.gather(*(rate(world) for _ in range(3)))

    assert (sum(rated), len(await lines(world))) == (4, 4)
    await world.check()


@pytest.mark.parametrize("is_after", [False, True], ids=["before the lines are durable", "after the lines are durable"])
async def test_crash_in_between_loses_no_line_and_makes_none_twice(store: Store, is_after: bool) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS), Script(duration_ms=HOUR_MS))
    with pytest.raises(KilledError):
        await rate(world, store=KillPoint(1, is_after=is_after).store(store))

    assert await rate(world) == (0 if is_after else 2)

    assert await totals(world) == (1_000 * 2 * HOUR_MS, 2 * H200_PER_HOUR)
    await world.check()


async def test_price_that_changes_during_a_lease_makes_a_line_for_each_price(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(gpus=2, limit_ms=10 * HOUR_MS, script=Script(duration_ms=3 * HOUR_MS))
    await world.settle()
    await store.run(fleet.CreatePrice("pri_new", "h200", "USD", 5_000_000, T0_MS + HOUR_MS + 1, world.now_ms))
    await world.until_ended(job, step_ms=HOUR_MS)

    await rate(world)

    told = [(line["price_id"], line["end_ms"] - line["start_ms"], line["amount_units"]) for line in await lines(world)]
    assert told == [("pri_h200", HOUR_MS + 1, 7_000_002), ("pri_new", 2 * HOUR_MS - 1, 19_999_997)]
    assert (await totals(world))[1] == 26_999_999


async def test_price_that_comes_in_while_a_batch_is_rated_is_followed(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS))
    prices = [fleet.CreatePrice("pri_new", "h200", "USD", 5_000_000, T0_MS + 30 * 60_000, T0_MS)]

    async def announce(command: Command[Any]) -> None:
        if isinstance(command, StoreLines) and prices:
            await store.run(prices.pop())

    assert await rate(world, store=HookedStore(store, before=announce)) == 1

    assert [line["price_id"] for line in await lines(world)] == ["pri_h200", "pri_new"]
    assert (await totals(world))[0] == 1_000 * HOUR_MS


async def test_price_that_comes_later_does_not_change_what_is_rated(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS))
    await rate(world)
    await store.run(fleet.CreatePrice("pri_new", "h200", "USD", 5_000_000, world.now_ms, world.now_ms))

    assert (await rate(world), await totals(world)) == (0, (1_000 * HOUR_MS, H200_PER_HOUR))


@pytest.mark.parametrize(
    ("script", "amount_units"),
    [
        pytest.param(Script(duration_ms=HOUR_MS, exit_code=1, failure_class="user_code"), H200_PER_HOUR, id="user code pays"),
        pytest.param(Script(duration_ms=HOUR_MS, exit_code=1, failure_class="out_of_memory"), H200_PER_HOUR, id="out of memory pays"),
        pytest.param(Script(duration_ms=HOUR_MS, exit_code=None, failure_class="platform"), 0, id="our own failure is credited"),
        pytest.param(Script(duration_ms=HOUR_MS, exit_code=None, failure_class="device"), 0, id="a broken device is credited"),
    ],
)
async def test_time_is_shown_and_charged_only_when_the_end_was_the_users(store: Store, script: Script, amount_units: int) -> None:
    world = await ended(store, script)

    await rate(world)

    assert await totals(world) == (1_000 * HOUR_MS, amount_units)
    assert {line["kind"] for line in await lines(world)} == ({"lease"} if amount_units else {"lease", "credit"})


async def test_node_that_is_lost_or_drained_costs_its_tenant_nothing(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 1, "node-b": 1})
    jobs = [await world.submit(attempts=1, script=Script(duration_ms=5 * HOUR_MS), limit_ms=9 * HOUR_MS) for _ in range(2)]
    await world.settle()
    await world.pass_time(HOUR_MS)
    await world.drain("node-a")
    await world.restart("node-b")
    await world.settle()
    for job in jobs:  # the evicted one is in its next attempt already, which nobody runs for any time here
        await world.cancel(job)
    await world.settle()

    assert (await rate(world), await totals(world)) == (3, (2 * 1_000 * HOUR_MS, 0))


async def test_windows_cut_leases_and_add_up_to_the_whole(store: Store) -> None:
    world = await ended(store, *[Script(start_ms=7 * number, duration_ms=HOUR_MS + 13 * number) for number in range(1, 5)])
    await rate(world)
    whole = await totals(world)

    edges = [0, T0_MS + 11, T0_MS + HOUR_MS // 3, T0_MS + HOUR_MS, T0_MS + HOUR_MS + 17, EVER.end_ms]
    parts = [await totals(world, Interval(start, end)) for start, end in itertools.pairwise(edges)]

    assert whole == (sum(part[0] for part in parts), sum(part[1] for part in parts))
    assert whole[0] == sum(1_000 * (lease["ended_at_ms"] - lease["granted_at_ms"]) for lease in await world.rows(tables.Lease))


async def test_time_without_a_price_is_shown_and_costs_nothing(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS))

    await rate(world, BillingSettings(currency="VND"))

    (line,) = await lines(world)
    assert (line["price_id"], line["amount_units"], line["currency"]) == (None, 0, "VND")
    assert await totals(world, currency="VND") == (1_000 * HOUR_MS, 0)


async def test_job_without_gpus_has_a_line_that_costs_nothing(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS), gpus=0, cpu_milli=4_000)

    assert (await rate(world), await totals(world)) == (1, (0, 0))
    assert [(line["flavor"], line["milli_gpu"]) for line in await lines(world)] == [(None, 0)]


def set_aside() -> float:
    """Return how often a lease was set aside in this process."""
    return REGISTRY.get_sample_value("terrace_billing_leases_set_aside_total") or 0


@pytest.mark.parametrize(
    "broken", ["end_cause = 'vanished'", "slices = 9000000000000000000"], ids=["a row that makes no sense", "an amount that fits no column"]
)
async def test_lease_that_cannot_be_rated_holds_up_no_other(store: Store, broken: str) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS), Script(duration_ms=2 * HOUR_MS))
    await store.run(Statement(f"UPDATE lease SET {broken} WHERE ended_at_ms = (SELECT min(ended_at_ms) FROM lease)"))  # noqa: S608
    aside, before = Aside(USD), set_aside()

    rated = [await rate_once(store, USD, now_ms=world.now_ms, aside=aside) for _ in range(3)]

    assert (rated, set_aside() - before) == ([1, 0, 0], 1)
    assert [line["amount_units"] for line in await lines(world)] == [2 * H200_PER_HOUR]


async def test_lease_that_was_set_aside_is_tried_again_after_a_while(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS))
    await store.run(Statement("UPDATE lease SET end_cause = 'vanished'"))
    aside = Aside(USD)
    assert await rate_once(store, USD, now_ms=world.now_ms, aside=aside) == 0
    await store.run(Statement("UPDATE lease SET end_cause = 'completed'"))

    rated = [await rate_once(store, USD, now_ms=world.now_ms + after_ms, aside=aside) for after_ms in (599_999, 600_000)]

    assert rated == [0, 1]


async def test_loop_rates_by_itself_and_survives_an_error(store: Store) -> None:
    world = await ended(store, Script(duration_ms=HOUR_MS))
    broken = ["the database is away"] * 2
    failures = REGISTRY.get_sample_value("terrace_billing_failures_total") or 0

    async def fail(command: Command[Any]) -> None:
        if isinstance(command, StoreLines) and broken:
            raise RuntimeError(broken.pop())

    stop = asyncio.Event()
    quick = BillingSettings(retry_seconds=0.0)
    task = asyncio.create_task(run(HookedStore(store, before=fail), quick, stop, now_ms=lambda: world.now_ms))
    await world.eventually(lambda: lines(world))
    stop.set()
    await task

    assert (REGISTRY.get_sample_value("terrace_billing_failures_total") or 0) - failures == 2
    assert await totals(world) == (1_000 * HOUR_MS, H200_PER_HOUR)
