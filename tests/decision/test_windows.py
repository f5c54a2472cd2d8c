"""Capacity reservations and maintenance: drained before, only their tenant inside, and a reason that says until when."""

from __future__ import annotations

import pytest

from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from quotas.tree import Preemption, PreemptWithin
from tests.decision.world import HOUR_MS, World


@pytest.fixture
def two(world: World) -> World:
    """Two nodes of eight and tenants x and y without a common cohort."""
    world.node("a")
    world.node("b")
    world.tenant("x", 16)
    world.tenant("y", 16)
    return world


@pytest.mark.parametrize("limit_ms", [HOUR_MS, HOUR_MS + 1], ids=["ends in time", "would reach into it"])
def test_devices_drain_before_the_window(two: World, limit_ms: int) -> None:
    two.reserve("contest", 16, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    job = two.job(tenant="y", limit_ms=limit_ms)
    started = [start.job for start in two.check().starts]
    assert started == ([job] if limit_ms == HOUR_MS else [])


def test_others_wait_for_the_end_of_the_window(two: World) -> None:
    two.reserve("contest", 16, tenant="x")
    job = two.job(tenant="y", limit_ms=60_000)
    data: dict[str, ReasonValue] = {"capacity_reservation": "contest", "starts_ms": 0, "ends_ms": HOUR_MS, "limit_ms": 60_000}
    assert two.reason(job) == Reason(ReasonCode.CAPACITY_RESERVED, data, Unblock.RESERVATION_ENDS)


def test_reason_before_the_window_says_which_limit_would_do(two: World) -> None:
    two.reserve("contest", 16, tenant="x", start_ms=5_000, end_ms=HOUR_MS)
    assert two.reason(two.job(tenant="y")).data["longest_limit_ms"] == 5_000


def test_job_drains_with_its_grace_before_the_window(two: World) -> None:
    two.grace_ms = 10
    two.reserve("contest", 16, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    in_time, too_long = (two.job(tenant="y", limit_ms=limit_ms) for limit_ms in (HOUR_MS - 10, HOUR_MS - 9))
    assert two.reason(too_long).data["longest_limit_ms"] == HOUR_MS - 10
    assert [start.job for start in two.check().starts] == [in_time]


def test_job_that_would_not_fit_anyway_is_told_so(two: World) -> None:
    two.reserve("contest", 8, tenant="x")
    for node in "ab":
        two.runs({node: range(8)}, tenant="z")
    two.expect_waiting(two.job(tenant="y"), ReasonCode.NO_CAPACITY)


def test_tenant_starts_inside_its_window_before_everybody_else(two: World) -> None:
    two.reserve("contest", 8, tenant="x")
    two.runs({"b": range(4)}, tenant="y")
    two.job(tenant="y", gpus=4, priority=9)
    inside = two.job(tenant="x", gpus=8)
    assert two.check().starts[0].job == inside


def test_what_is_not_set_aside_stays_open(two: World) -> None:
    two.reserve("contest", 8, tenant="x")
    jobs = [two.job(tenant="y", gpus=4) for _ in range(3)]
    assert [start.job for start in two.check().starts] == jobs[:2]


def test_window_takes_the_node_that_drains_in_time(two: World) -> None:
    two.runs({"a": [0]}, tenant="y", limit_ms=9 * HOUR_MS)
    two.reserve("contest", 8, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    two.expect(two.job(tenant="y", gpus=7, limit_ms=9 * HOUR_MS), on="a")


def test_window_keeps_the_node_on_which_its_tenant_runs(two: World) -> None:
    two.runs({"b": range(4)}, tenant="x", limit_ms=9 * HOUR_MS)
    two.reserve("contest", 8, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    two.expect(two.job(tenant="y", gpus=8, limit_ms=9 * HOUR_MS), on="a")


def test_overlapping_windows_get_devices_of_their_own(two: World) -> None:
    two.reserve("first", 8, tenant="x")
    two.reserve("second", 8, tenant="y")
    jobs = [two.job(tenant=tenant, gpus=8) for tenant in "xy"]
    assert {start.job for start in two.check().starts} == set(jobs)
    assert two.check().starts[0].nodes != two.check().starts[1].nodes


def test_projects_of_the_tenant_are_inside(two: World) -> None:
    two.project("p", parent="x")
    two.reserve("contest", 16, tenant="x")
    two.expect(two.job(tenant="p", gpus=8), on="a")


def test_past_window_closes_nothing(two: World) -> None:
    two.now_ms = HOUR_MS
    two.reserve("contest", 16, tenant="x")
    two.expect(two.job(tenant="y"), on="a")


def test_those_who_stayed_too_long_leave_for_the_tenant(two: World) -> None:
    late = two.runs({"a": range(8)}, tenant="y", limit_ms=9 * HOUR_MS)
    two.runs({"b": range(8)}, tenant="x")
    two.reserve("contest", 16, tenant="x")
    two.expect_preempted(two.job(tenant="x", gpus=8), late)
    assert two.causes() == {late: "capacity_reservation"}


def test_own_jobs_and_those_that_may_not_be_stopped_stay(two: World) -> None:
    two.runs({"a": range(8)}, tenant="y", is_preemptible=False)
    two.runs({"b": range(8)}, tenant="x", priority=-9)
    two.reserve("contest", 16, tenant="x")
    two.expect_waiting(two.job(tenant="x", gpus=8), ReasonCode.NO_CAPACITY)


def test_quota_counts_inside_a_window_too(two: World) -> None:
    two.tenant("x", 4)
    two.reserve("contest", 16, tenant="x")
    two.runs({"a": [0, 1]}, tenant="x")
    two.expect_waiting(two.job(tenant="x", gpus=3), ReasonCode.QUOTA_EXCEEDED)


def test_preemption_takes_no_devices_of_a_window(two: World) -> None:
    two.tenant("y", 16, preemption=Preemption(PreemptWithin.LOWER_PRIORITY))
    two.runs({"a": range(8)}, tenant="y", priority=-1)
    two.runs({"b": range(8)}, tenant="y", priority=-1)
    two.reserve("contest", 16, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    two.job(tenant="y", gpus=8, limit_ms=2 * HOUR_MS)
    assert two.check().preemptions == ()


def test_blocked_job_is_forecast_behind_the_window(two: World) -> None:
    two.reserve("contest", 16, tenant="x", start_ms=5_000, end_ms=HOUR_MS)
    forecast = two.forecast(two.job(tenant="y"))
    assert forecast is not None
    assert forecast.start_ms == HOUR_MS


def test_nodes_drain_before_maintenance_and_take_nothing_during_it(two: World) -> None:
    two.maintain("a", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    two.expect(two.job(tenant="y", gpus=8, limit_ms=HOUR_MS), on="a")
    long = two.job(tenant="x", gpus=8, limit_ms=HOUR_MS + 1)
    two.expect(long, on="b")


def test_maintenance_of_everything_is_named(two: World) -> None:
    two.maintain("a", "b")
    job = two.job(gpus=0, cpus=1, limit_ms=60_000)
    data: dict[str, ReasonValue] = {"maintenance": "service", "starts_ms": 0, "ends_ms": HOUR_MS, "limit_ms": 60_000}
    assert two.reason(job) == Reason(ReasonCode.CAPACITY_RESERVED, data, Unblock.RESERVATION_ENDS)


def test_window_gets_no_devices_under_maintenance(two: World) -> None:
    two.maintain("a")
    two.reserve("contest", 8, tenant="x")
    two.expect(two.job(tenant="x", gpus=8, limit_ms=60_000), on="b")


def devices(world: World, job: str) -> list[int]:
    """Return the devices on which a job starts."""
    return [piece.device_index for start in world.check().starts if start.job == job for piece in start.slices]


def test_windows_that_follow_one_another_use_the_same_devices(two: World) -> None:
    two.reserve("first", 8, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    two.reserve("second", 8, tenant="x", start_ms=2 * HOUR_MS, end_ms=3 * HOUR_MS)
    two.expect(two.job(tenant="y", gpus=8, limit_ms=9 * HOUR_MS), on="b")


@pytest.mark.parametrize("second_ms", [0, HOUR_MS - 1], ids=["at once", "just before the first ends"])
def test_windows_that_meet_in_time_share_no_devices(two: World, second_ms: int) -> None:
    two.reserve("first", 8, tenant="x")
    two.reserve("second", 8, tenant="x", start_ms=second_ms, end_ms=2 * HOUR_MS)
    two.expect_waiting(two.job(tenant="y", limit_ms=9 * HOUR_MS), ReasonCode.CAPACITY_RESERVED)


def test_window_beside_another_on_a_node_gets_all_that_is_left_of_it(world: World) -> None:
    world.node("a")
    world.tenant("x", 8)
    world.tenant("y", 8)
    world.runs({"a": [4, 5, 6, 7]}, tenant="x")
    world.reserve("first", 4, tenant="x")  # keeps the devices on which its tenant runs
    world.reserve("second", 4, tenant="y")
    world.expect_waiting(world.job(tenant="z"), ReasonCode.CAPACITY_RESERVED)
    assert devices(world, world.job(tenant="y", gpus=4)) == [0, 1, 2, 3]


def test_window_of_a_tenant_that_runs_nothing_goes_where_it_leaves_least_over(two: World) -> None:
    two.runs({"a": [0]}, tenant="y", limit_ms=9 * HOUR_MS)
    two.reserve("contest", 7, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    two.expect(two.job(tenant="y", gpus=8, limit_ms=9 * HOUR_MS), on="b")


@pytest.mark.parametrize(("limit_ms", "left"), [(HOUR_MS, [2, 3]), (HOUR_MS + 1, [3])], ids=["drains in time", "is held for longer"])
def test_window_takes_what_drains_before_what_others_hold_for_longer(world: World, limit_ms: int, left: list[int]) -> None:
    world.node("a", gpus=4)
    world.tenant("x", 4)
    world.tenant("y", 4)
    world.runs({"a": [1]}, tenant="y", limit_ms=limit_ms)
    world.reserve("contest", 2, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    jobs = [world.job(tenant="y", limit_ms=9 * HOUR_MS) for _ in range(2)]
    assert [device for job in jobs for device in devices(world, job)] == left


def test_window_takes_devices_of_its_own_tenant_however_long_it_holds_them(world: World) -> None:
    world.node("a", gpus=4)
    world.tenant("x", 4)
    world.tenant("y", 4)
    world.runs({"a": [3]}, tenant="x", limit_ms=9 * HOUR_MS)
    world.reserve("contest", 1, tenant="x", start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    assert devices(world, world.job(tenant="y", gpus=3, limit_ms=9 * HOUR_MS)) == [0, 1, 2]
