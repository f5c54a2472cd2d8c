"""Rating and reports: a lease is rated once, and a report reads its lines and leases in one consistent state."""

from __future__ import annotations

import pytest

from billing.calc import rating
from domain.intervals import Interval
from domain.states import LeaseEndCause
from store import fleet, usage
from store.errors import InvalidError
from store.usage import RATE_BATCH_MAXIMUM, LeasesToRate, ReportData, StoreLines, ToRate, UsageBetween
from tests.store.world import HOUR_MS, T0_MS, World
from tests.support import invariants
from tests.support.statements import change, rows

ALWAYS = Interval(0, T0_MS + 100 * HOUR_MS)


@pytest.fixture
def acme(world: World) -> World:
    """Two tenants, and a node on which `lea_a` of acme ran for an hour and `lea_o` of other for half of one."""
    world.node("a")
    for device, tenant in enumerate(("acme", "other")):
        world.tenant(tenant)
        world.bind(world.start(world.job(tenant=tenant), on=[("a", device)], lease=f"lea_{tenant[0]}"))
    for lease, half_hours in (("lea_a", 2), ("lea_o", 1)):
        world.run_to_the_end(lease, ended_ms=half_hours * HOUR_MS // 2, released_ms=2 * HOUR_MS)
    return world


def rate(world: World) -> int:
    rated: int = world.run(lines_of(world))
    return rated


def lines_of(world: World) -> StoreLines:
    """Return the lines of what waits, by the price book of this moment."""
    batch = world.read(LeasesToRate("USD"))
    lines = [line for lease in batch.leases for line in rating.rate(lease, batch.prices)]
    return StoreLines(lines, [lease.id for lease in batch.leases], "USD", world.now_ms, batch.prices)


def report(world: World, window: Interval = ALWAYS, tenant: str | None = None, currency: str = "USD") -> ReportData:
    data: ReportData = world.read(UsageBetween(window, currency, tenant))
    return data


def test_ended_leases_wait_for_rating_oldest_end_first(acme: World) -> None:
    running = acme.lease(acme.job(), on=[("a", 2)])
    batch = acme.read(LeasesToRate("USD"))
    assert [(lease.id, lease.charged, lease.end_cause) for lease in batch.leases] == [
        ("lea_o", Interval(T0_MS, T0_MS + HOUR_MS // 2), LeaseEndCause.COMPLETED),
        ("lea_a", Interval(T0_MS, T0_MS + HOUR_MS), LeaseEndCause.COMPLETED),
    ]
    assert running not in {lease.id for lease in batch.leases}
    assert {price.flavor: price.units_per_hour for price in batch.prices}["h200"] == 3_500_000


def test_lease_is_rated_once_whoever_does_it(acme: World) -> None:
    command = lines_of(acme)
    assert [acme.run(command) for _ in range(2)] == [2, 0]
    assert rows(acme.store, "SELECT lease_id, amount_units, milli_gpu_ms FROM usage_line ORDER BY id") == [
        ("lea_a", 3_500_000, 1_000 * HOUR_MS),
        ("lea_o", 1_750_000, 500 * HOUR_MS),
    ]
    assert acme.read(LeasesToRate("USD")) == ToRate((), ())
    invariants.check_blocking(acme.store)


def test_batch_of_leases_to_rate_is_bounded(acme: World) -> None:
    same = "tenant_id, project_id, user_id, flavor, slices, milli_gpu, target, token, limit_ms, grace_ms, granted_at_ms, end_cause"
    new = f"INSERT INTO lease (id, job_id, attempt, ended_at_ms, {same})"
    copy = f"{new} SELECT :id, job_id, :attempt, ended_at_ms, {same} FROM lease WHERE id = 'lea_a'"  # noqa: S608  names of this file
    for number in range(RATE_BATCH_MAXIMUM):
        change(acme.store, copy, id=f"lea_{number}", attempt=number + 2)
    assert len(acme.read(LeasesToRate("USD")).leases) == RATE_BATCH_MAXIMUM
    aside = frozenset(["lea_o", "lea_0"])
    assert len({lease.id for lease in acme.read(LeasesToRate("USD", aside)).leases} - aside) == RATE_BATCH_MAXIMUM


def test_lease_whose_row_makes_no_sense_is_named_beside_the_others(acme: World) -> None:
    change(acme.store, "UPDATE lease SET end_cause = 'vanished' WHERE id = 'lea_o'")
    batch = acme.read(LeasesToRate("USD"))
    assert ([lease.id for lease in batch.leases], batch.unreadable) == (
        ["lea_a"],
        (("lea_o", "'vanished' is not a valid LeaseEndCause"),),
    )


def test_lines_by_an_older_price_book_are_not_stored(acme: World) -> None:
    command = lines_of(acme)
    acme.run(fleet.CreatePrice("pri_new", "h200", "USD", 42, T0_MS + 1, T0_MS))
    assert (acme.run(command), rows(acme.store, "SELECT id FROM usage_line")) == (None, [])
    assert (rate(acme), len(report(acme).lines)) == (2, 4)


def test_report_of_too_many_lines_is_refused(acme: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rate(acme)
    monkeypatch.setattr(usage, "REPORT_LINES_MAXIMUM", 2)
    assert len(report(acme).lines) == 2
    monkeypatch.setattr(usage, "REPORT_LINES_MAXIMUM", 1)
    with pytest.raises(InvalidError, match="more than 1 usage lines") as refused:
        report(acme)
    assert (refused.value.code, refused.value.data) == ("report_too_large", {"field": "from", "limit": 1})
    assert len(report(acme, tenant="ten_acme").lines) == 1


def test_report_has_lines_leases_and_names_of_its_tenant_only(acme: World) -> None:
    rate(acme)
    data = report(acme, tenant="ten_acme")
    assert [(line.lease_id, line.amount_units, line.interval.length_ms) for line in data.lines] == [("lea_a", 3_500_000, HOUR_MS)]
    assert [lease.id for lease in data.leases] == ["lea_a"]
    assert data.names == {"ten_acme": "acme", "prj_acme": "default", "usr_acme": "acme"}
    assert {line.tenant_id for line in report(acme).lines} == {"ten_acme", "ten_other"}


@pytest.mark.parametrize(
    ("start", "end", "leases"),
    [
        pytest.param(-HOUR_MS, 0, [], id="before"),
        pytest.param(0, 1, ["lea_a", "lea_o"], id="their first millisecond"),
        pytest.param(HOUR_MS // 2, HOUR_MS, ["lea_a"], id="after one has ended"),
        pytest.param(HOUR_MS, 2 * HOUR_MS, [], id="after both"),
    ],
)
def test_report_reads_what_touches_its_window(acme: World, start: int, end: int, leases: list[str]) -> None:
    rate(acme)
    data = report(acme, Interval(T0_MS + start, T0_MS + end))
    assert sorted(line.lease_id for line in data.lines) == sorted(lease.id for lease in data.leases) == leases


def test_report_says_what_it_does_not_know_yet(acme: World) -> None:
    acme.lease(acme.job(), on=[("a", 2)])
    data = report(acme)
    assert (data.lines, data.leases, data.unrated_leases, data.open_leases) == ((), (), 2, 1)
    rate(acme)
    assert (report(acme).unrated_leases, report(acme, tenant="ten_other").open_leases) == (0, 0)


def test_lines_of_another_currency_are_not_mixed_in(acme: World) -> None:
    rate(acme)
    assert report(acme, currency="VND").lines == ()
