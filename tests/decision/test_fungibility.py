"""Ordered flavors: whether a job borrows or preempts on one before it tries the next. Defaults are Kueue's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from quotas.tree import Fungibility, Preemption, PreemptWithin, Reclaim, WhenCanBorrow, WhenCanPreempt
from tests.decision.world import World, quota

BOTH = Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY)
FLAVORS = ("h200", "l40s")
NEXT_BEFORE_BORROWING = Fungibility(when_can_borrow=WhenCanBorrow.TRY_NEXT_FLAVOR)
PREEMPT_FIRST = Fungibility(when_can_preempt=WhenCanPreempt.PREEMPT)


@pytest.fixture
def mixed(world: World) -> World:
    """A node of each model and a cohort that owns eight of both; tenant x owns nothing of h200 and four of l40s."""
    world.policy = replace(world.policy, fair_sharing=False)
    world.node("a")
    world.node("b", model="l40s")
    world.cohort("all")
    world.quota_nodes["all"] = replace(world.quota_nodes["all"], quotas={model: quota(4) for model in FLAVORS})
    return world


def tenant(world: World, choice: Fungibility, *, h200: int = 0, l40s: int = 4, name: str = "x") -> None:
    world.tenant(name, parent="all", models=FLAVORS, preemption=BOTH, fungibility=choice)
    world.quota_nodes[name] = replace(world.quota_nodes[name], quotas={"h200": quota(h200), "l40s": quota(l40s)})


def test_job_borrows_on_its_first_flavor_by_default(mixed: World) -> None:
    tenant(mixed, Fungibility())
    mixed.expect(mixed.job(models=FLAVORS), on="a")


def test_job_may_look_for_a_flavor_without_borrowing_first(mixed: World) -> None:
    tenant(mixed, NEXT_BEFORE_BORROWING)
    mixed.expect(mixed.job(models=FLAVORS), on="b")


def test_job_borrows_on_the_first_flavor_when_it_would_on_all(mixed: World) -> None:
    tenant(mixed, NEXT_BEFORE_BORROWING, l40s=0)
    mixed.expect(mixed.job(models=FLAVORS), on="a")


def test_job_takes_the_next_flavor_rather_than_preempt_by_default(mixed: World) -> None:
    tenant(mixed, Fungibility(), h200=4)
    mixed.quota_nodes["all"] = replace(mixed.quota_nodes["all"], quotas={})
    mixed.runs({"a": range(4)}, priority=-1)
    mixed.expect(mixed.job(models=FLAVORS), on="b")


def test_job_may_preempt_before_it_takes_the_next_flavor(mixed: World) -> None:
    tenant(mixed, PREEMPT_FIRST, h200=4)
    mixed.quota_nodes["all"] = replace(mixed.quota_nodes["all"], quotas={})
    low = mixed.runs({"a": range(4)}, priority=-1)
    mixed.expect_preempted(mixed.job(models=FLAVORS), low)


def test_job_takes_the_next_flavor_when_nobody_can_leave_on_the_first(mixed: World) -> None:
    tenant(mixed, PREEMPT_FIRST, h200=4)
    mixed.quota_nodes["all"] = replace(mixed.quota_nodes["all"], quotas={})
    mixed.runs({"a": range(4)}, priority=9)
    mixed.expect(mixed.job(models=FLAVORS), on="b")


def test_flavor_on_which_only_lent_quota_is_taken_back_is_better(mixed: World) -> None:
    tenant(mixed, Fungibility(), h200=4)
    tenant(mixed, Fungibility(), l40s=0, name="y")
    mixed.quota_nodes["all"] = replace(mixed.quota_nodes["all"], quotas={})
    mixed.runs({"a": range(4)}, priority=-1)
    lent = mixed.runs({"b": range(4)}, model="l40s", tenant="y", priority=9)
    mixed.expect_preempted(mixed.job(models=FLAVORS), lent)
    assert mixed.causes() == {lent: "reclaim"}


def test_project_chooses_as_its_tenant_says(mixed: World) -> None:
    tenant(mixed, NEXT_BEFORE_BORROWING)
    mixed.project("p", parent="x")
    mixed.expect(mixed.job(models=FLAVORS, tenant="p"), on="b")


@pytest.mark.parametrize(("h200", "stops"), [(4, True), (1, False)], ids=["without borrowing", "borrowing"])
def test_preempting_stops_the_search_only_as_far_as_borrowing_may(mixed: World, h200: int, stops: bool) -> None:
    mixed.policy = replace(mixed.policy, fair_sharing=True)
    tenant(mixed, Fungibility(WhenCanBorrow.TRY_NEXT_FLAVOR, WhenCanPreempt.PREEMPT), h200=h200)
    mixed.runs({"a": range(h200 + 4)}, priority=-1)
    mixed.job(gpus=2, models=FLAVORS)
    assert bool(mixed.check().preemptions) is stops


def beside_a_borrower(world: World, choice: Fungibility) -> tuple[str, str]:
    """x may choose, y only borrow, one l40s is free and y's job is more urgent: return the jobs of x and y."""
    tenant(world, choice)
    tenant(world, choice, l40s=0, name="y")
    world.runs({"b": range(7)}, model="l40s", tenant="z")
    return world.job(models=FLAVORS, tenant="x"), world.job(models=("l40s",), tenant="y", priority=9)


def first_start(world: World) -> str:
    return world.check().starts[0].job


def test_job_that_looks_for_a_flavor_without_borrowing_is_served_as_one_within_quota(mixed: World) -> None:
    of_x, _ = beside_a_borrower(mixed, NEXT_BEFORE_BORROWING)
    assert first_start(mixed) == of_x


def test_job_that_borrows_on_its_first_flavor_is_served_as_a_borrower(mixed: World) -> None:
    _, of_y = beside_a_borrower(mixed, Fungibility())
    assert first_start(mixed) == of_y


def test_job_whose_first_flavor_is_used_up_is_served_by_its_next_one(mixed: World) -> None:
    of_x, _ = beside_a_borrower(mixed, Fungibility())
    mixed.runs({"a": range(4)}, tenant="y")  # all that the cohort has of h200
    assert first_start(mixed) == of_x


def test_job_whose_first_flavor_is_used_up_by_a_start_moves_ahead(mixed: World) -> None:
    of_x, of_y = beside_a_borrower(mixed, Fungibility())
    taker = mixed.job(gpus=4, tenant="y", priority=10)  # borrows all that the cohort has of h200
    assert [start.job for start in mixed.check().starts] == [taker, of_x], of_y


@pytest.mark.parametrize("models", [FLAVORS, FLAVORS[::-1]], ids=["refused first", "refused last"])
def test_reason_is_that_of_the_flavor_that_came_furthest(mixed: World, models: tuple[str, ...]) -> None:
    tenant(mixed, Fungibility(), l40s=8)
    mixed.quota_nodes["all"] = replace(mixed.quota_nodes["all"], quotas={"h200": quota(1)})
    mixed.runs({"a": [0]}, tenant="x")  # all the quota that there is for h200
    mixed.runs({"b": range(8)}, model="l40s", tenant="z")
    reason = mixed.expect_waiting(mixed.job(models=models), ReasonCode.NO_CAPACITY)
    assert reason.data["gpu_model"] == "l40s"
