"""Smaller jobs pass a blocked one only when they do not delay it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from scheduler.decision.plan import Forecast
from tests.decision.world import HOUR_MS, World


def busy_half(world: World) -> str:
    """One node of 8, half of it busy for an hour, and a blocked job of 8 at the head of the queue."""
    world.node("a")
    world.runs({"a": [0, 1, 2, 3]}, limit_ms=HOUR_MS)
    return world.job(gpus=8, priority=1)


@pytest.mark.parametrize("limit_ms", [HOUR_MS - 1, HOUR_MS])
def test_job_that_ends_before_the_blocked_one_starts_may_pass(world: World, limit_ms: int) -> None:
    busy_half(world)
    job = world.job(gpus=4, limit_ms=limit_ms)
    world.expect(job, on="a")


def test_job_that_would_delay_the_blocked_one_waits(world: World) -> None:
    busy_half(world)
    job = world.job(gpus=1, limit_ms=HOUR_MS + 1)
    reason = world.expect_waiting(job, ReasonCode.WOULD_DELAY)
    assert reason.data == {"limit_ms": HOUR_MS + 1, "held_from_ms": HOUR_MS}


def test_long_job_passes_on_what_the_blocked_one_leaves_over(world: World) -> None:
    world.node("a")
    world.runs({"a": [0, 1, 2, 3]}, limit_ms=HOUR_MS)
    world.job(gpus=6, priority=1)
    jobs = [world.job(gpus=1, limit_ms=9 * HOUR_MS) for _ in range(3)]
    assert [start.job for start in world.check().starts] == jobs[:2]


def test_long_job_goes_to_another_node_than_the_held_one(world: World) -> None:
    busy_half(world)
    world.node("b", gpus=6)
    job = world.job(gpus=4, limit_ms=9 * HOUR_MS)
    world.expect(job, on="b")


def test_depth_zero_switches_backfill_protection_off(world: World) -> None:
    busy_half(world)
    world.policy = replace(world.policy, backfill_depth=0)
    job = world.job(gpus=4, limit_ms=9 * HOUR_MS)
    world.expect(job, on="a")


def test_depth_one_protects_the_first_blocked_job_only(world: World) -> None:
    world.node("a", gpus=4)
    world.node("b", gpus=4)
    world.runs({"a": [0]}, limit_ms=HOUR_MS)
    world.runs({"b": [0]}, limit_ms=HOUR_MS + 1)
    for _ in range(2):
        world.job(gpus=4, priority=1)
    world.policy = replace(world.policy, backfill_depth=1)
    job = world.job(gpus=3, limit_ms=9 * HOUR_MS)
    world.expect(job, on="b")


def test_every_blocked_job_within_the_depth_is_protected(world: World) -> None:
    world.node("a", gpus=4)
    world.node("b", gpus=4)
    world.runs({"a": [0]}, limit_ms=HOUR_MS)
    world.runs({"b": [0]}, limit_ms=HOUR_MS + 1)
    for _ in range(2):
        world.job(gpus=4, priority=1)
    job = world.job(gpus=3, limit_ms=9 * HOUR_MS)
    world.expect_waiting(job, ReasonCode.WOULD_DELAY)


def test_job_blocked_by_quota_holds_no_place(world: World) -> None:
    world.node("a")
    world.tenant("x", 4)
    world.runs({"a": [0]}, tenant="x")
    world.job(gpus=4, tenant="x", priority=1)
    job = world.job(gpus=7, tenant="y", limit_ms=9 * HOUR_MS)
    world.expect(job, on="a")


def test_blocked_job_of_one_model_does_not_hold_up_another_model(world: World) -> None:
    busy_half(world)
    world.node("b", model="l40s")
    world.tenant("y", models=("l40s",))
    job = world.job(tenant="y", models=("l40s",), limit_ms=9 * HOUR_MS)
    world.expect(job, on="b")


def test_gang_goes_beside_holds_on_several_nodes_where_one_node_would_be_in_the_way(world: World) -> None:
    for node, busy in (("a", 4), ("b", 6), ("c", 6)):
        world.node(node)
        world.runs({node: range(busy)}, limit_ms=HOUR_MS)
    world.job(gpus=8, priority=2)
    world.job(gpus=6, replicas=2, priority=1)
    # The first blocked job holds all of a, the second leaves two over on b and on c: one replica each, not two on one node.
    world.expect(world.job(gpus=2, replicas=2, limit_ms=9 * HOUR_MS), on=("b", "c"))


def test_job_that_may_still_be_stopping_when_the_blocked_one_starts_waits(world: World) -> None:
    busy_half(world)
    job = world.job(gpus=4, limit_ms=HOUR_MS - 10)
    world.grace_ms = 10
    world.expect(job, on="a")
    world.grace_ms = 11
    world.expect_waiting(job, ReasonCode.WOULD_DELAY)


def test_forward_start_time_counts_the_grace_of_whoever_starts_before(world: World) -> None:
    world.grace_ms = 11
    world.node("a", gpus=4)
    first, second = world.job(gpus=4), world.job(gpus=4)
    assert world.forecast(second) == Forecast(start_ms=HOUR_MS + 11), first


def overdue(world: World, late_ms: int, limit_ms: int) -> str:
    """A node half of which should have been back `late_ms` ago, a blocked job that needs all of it, and a short job."""
    world.node("a")
    world.runs({"a": [0, 1, 2, 3]}, started_ms=-HOUR_MS - late_ms, limit_ms=HOUR_MS)
    world.job(gpus=8, priority=1)
    return world.job(gpus=4, limit_ms=limit_ms)


@pytest.mark.parametrize(
    ("late_ms", "expected_ms"), [(0, 1), (1, 1), (5, 3), (7, 1), (5_000, 3_192)], ids=["due", "1 ms", "5 ms", "7 ms", "5 s"]
)
def test_overdue_job_is_expected_to_be_late_by_up_to_twice_as_much(world: World, late_ms: int, expected_ms: int) -> None:
    short = overdue(world, late_ms, expected_ms)
    world.expect(short, on="a")


@pytest.mark.parametrize("late_ms", [5_000, 8_191])
def test_reason_of_those_who_wait_for_an_overdue_job_stands_still(world: World, late_ms: int) -> None:
    job = overdue(world, late_ms, HOUR_MS)
    reason = world.expect_waiting(job, ReasonCode.WOULD_DELAY)
    assert reason.data == {"limit_ms": HOUR_MS, "held_from_ms": 8_192 - late_ms}


def test_overdue_leaver_is_expected_later_than_now(world: World) -> None:
    world.node("a")
    world.runs({"a": range(4)}, started_ms=-10, releases_ms=-5)
    world.check()
    assert world.running[0].ends_ms(0) == 3


@pytest.mark.parametrize(("depth", "waits"), [(2, False), (3, True)])
def test_depth_counts_blocked_jobs_over_all_classes_of_a_model(world: World, depth: int, waits: bool) -> None:
    for at, node in enumerate("abc"):
        world.node(node, gpus=4)
        world.runs({node: [0]}, limit_ms=HOUR_MS + at)
    for limit_ms in (HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS):  # three classes of one job each
        world.job(gpus=4, priority=1, limit_ms=limit_ms)
    world.policy = replace(world.policy, backfill_depth=depth)
    long = world.job(gpus=3, limit_ms=9 * HOUR_MS)
    assert (long not in {start.job for start in world.check().starts}) is waits


def test_depth_is_that_of_each_model(world: World) -> None:
    for node, model in (("a", "h200"), ("b", "l40s")):
        world.node(node, gpus=4, model=model)
        world.tenant(node, models=(model,))
        world.runs({node: [0]}, model=model, tenant=node)
        world.job(gpus=4, priority=1, models=(model,), tenant=node)
    world.policy = replace(world.policy, backfill_depth=1)
    jobs = [world.job(gpus=3, models=(model,), tenant=node, limit_ms=9 * HOUR_MS) for node, model in (("a", "h200"), ("b", "l40s"))]
    assert [world.reason(job).code for job in jobs] == [ReasonCode.WOULD_DELAY] * 2
