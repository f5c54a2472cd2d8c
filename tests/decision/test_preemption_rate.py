"""How many victims a pool may lose within an hour, those of the plan in hand included."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from quotas.tree import Preemption, PreemptWithin
from tests.decision.world import HOUR_MS, World

HANOI = ("hanoi", "h200")


@pytest.fixture
def two_an_hour(world: World) -> World:
    """A tenant whose urgent jobs stop its others, at most two an hour in each pool; four of those others fill a node."""
    world.policy = replace(world.policy, preemptions_per_hour=2)
    world.node("a", gpus=4)
    world.tenant("x", 8, models=("h200", "l40s"), preemption=Preemption(PreemptWithin.LOWER_PRIORITY))
    for at in range(4):
        world.runs({"a": [at]}, priority=-1)
    return world


def beneficiaries(world: World) -> list[str]:
    return [item.beneficiary for item in world.check().preemptions]


def test_victims_of_one_plan_count_against_one_another(two_an_hour: World) -> None:
    jobs = [two_an_hour.job(limit_ms=HOUR_MS + at) for at in range(3)]
    assert beneficiaries(two_an_hour) == jobs[:2]


def test_job_that_needs_more_victims_than_are_left_takes_none(two_an_hour: World) -> None:
    two_an_hour.expect_waiting(two_an_hour.job(gpus=3, priority=1), ReasonCode.NO_CAPACITY)
    fits = two_an_hour.job(gpus=2)
    assert beneficiaries(two_an_hour) == [fits, fits]


@pytest.mark.parametrize(("ago_ms", "taken"), [(HOUR_MS, 2), (HOUR_MS - 1, 1)], ids=["an hour ago", "within the hour"])
def test_victims_of_the_last_hour_count(two_an_hour: World, ago_ms: int, taken: int) -> None:
    two_an_hour.recent_preemptions = {HANOI: [-ago_ms]}
    for at in range(3):
        two_an_hour.job(limit_ms=HOUR_MS + at)
    assert len(beneficiaries(two_an_hour)) == taken


def test_pool_that_has_lost_enough_does_not_hold_up_another(two_an_hour: World) -> None:
    two_an_hour.recent_preemptions = {HANOI: [0, 0]}
    two_an_hour.node("b", gpus=1, model="l40s")
    two_an_hour.runs({"b": [0]}, model="l40s", priority=-1)
    two_an_hour.job()
    other = two_an_hour.job(models=("l40s",))
    assert beneficiaries(two_an_hour) == [other]


def test_same_model_on_another_site_is_another_pool(two_an_hour: World) -> None:
    two_an_hour.recent_preemptions = {HANOI: [0, 0]}
    two_an_hour.node("b", gpus=1, site="hue")
    in_hue = two_an_hour.runs({"b": [0]}, priority=-1)
    assert beneficiaries(two_an_hour) == []
    two_an_hour.expect_preempted(two_an_hour.job(sites=("hue",)), in_hue)


def test_who_stands_beside_a_window_does_not_count_for_it(world: World) -> None:
    world.policy = replace(world.policy, preemptions_per_hour=1)
    for node in "ab":
        world.node(node, gpus=1)
    world.tenant("x", 2)
    world.tenant("y", 2)
    world.runs({"a": [0]}, tenant="y", priority=-1, limit_ms=HOUR_MS // 2)  # the better victim, on a node that the window does not get
    inside = world.runs({"b": [0]}, tenant="y", limit_ms=HOUR_MS // 2)
    world.maintain("a", start_ms=0)
    world.reserve("contest", 1, tenant="x")
    world.expect_preempted(world.job(tenant="x"), inside)
