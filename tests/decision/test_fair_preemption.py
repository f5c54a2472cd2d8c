"""Whom a job may stop under fair sharing: whoever has the highest share, as long as it stays just. Fractions are worked by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from domain.reasons import ReasonCode
from quotas.tree import Preemption, PreemptWithin, Reclaim
from tests.decision.world import World

BOTH = Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY)


@pytest.fixture
def shared(world: World) -> World:
    """Tenants x, y and z with three GPUs each in one cohort, so that nine can be lent; nodes enough for all of them."""
    world.node("a")
    world.node("b")
    world.cohort("all")
    for tenant in "xyz":
        world.tenant(tenant, 3, parent="all", preemption=BOTH)
    return world


def fill(world: World, held: Mapping[str, int], *, size: int = 1) -> dict[str, list[str]]:
    """Let each tenant hold jobs of `size` GPUs, in order; later ones are newer, so they lose least. Returns the jobs by tenant."""
    free = [(node.name, device.index) for node in world.nodes for device in node.devices]
    jobs: dict[str, list[str]] = {}
    for tenant, gpus in held.items():
        for at in range(gpus // size):
            places = [free.pop(0) for _ in range(size)]
            jobs.setdefault(tenant, []).append(
                world.runs({places[0][0]: [device for _, device in places]}, tenant=tenant, started_ms=-100 + at)
            )
    return jobs


def test_own_quota_is_taken_back_from_the_highest_share(shared: World) -> None:
    jobs = fill(shared, {"y": 5, "z": 4})
    shared.job(tenant="x")
    # Shares: y 2/9, z 1/9. x stays within its own quota, so it takes back without comparing.
    assert shared.causes() == {jobs["y"][-1]: "reclaim"}


def test_borrower_takes_when_the_loser_keeps_as_much(shared: World) -> None:
    jobs = fill(shared, {"x": 3, "y": 5, "z": 1})
    shared.job(tenant="x")
    # After the start x has 1/9, and y without one job still 1/9.
    assert shared.causes() == {jobs["y"][-1]: "fair_share"}


def test_imbalance_is_not_turned_round(shared: World) -> None:
    fill(shared, {"x": 3, "y": 4, "z": 2})
    # x would have 1/9, y would keep 0 and has 1/9 now: neither strategy allows it.
    shared.expect_waiting(shared.job(tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_nobody_within_its_own_quota_loses_anything(shared: World) -> None:
    fill(shared, {"x": 3, "y": 3, "z": 3})
    shared.expect_waiting(shared.job(tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_huge_job_leaves_for_a_small_one_of_somebody_with_less(shared: World) -> None:
    jobs = fill(shared, {"y": 8}, size=8)
    shared.runs({"b": [0]}, tenant="x")
    shared.job(tenant="x", gpus=3)
    # x would have 1/9 and y keeps 0, but y has 5/9 now: what is too big to share leaves in the second round.
    assert shared.causes() == {jobs["y"][0]: "fair_share"}


def test_huge_job_stays_when_the_other_is_as_huge(world: World) -> None:
    world.node("a")
    world.cohort("all", gpus=8)
    for tenant in "xy":
        world.tenant(tenant, 0, parent="all", preemption=BOTH)
    fill(world, {"y": 8}, size=8)
    world.expect_waiting(world.job(tenant="x", gpus=8), ReasonCode.QUOTA_EXCEEDED)


def test_victims_come_from_every_tenant_above_the_takers_share(shared: World) -> None:
    jobs = fill(shared, {"x": 1, "y": 4, "z": 4})
    shared.job(tenant="x", gpus=2)
    assert shared.causes() == {jobs["y"][-1]: "reclaim", jobs["z"][-1]: "reclaim"}


def test_lower_priority_of_the_own_tenant_leaves_too(shared: World) -> None:
    low = shared.runs({"a": [0, 1, 2]}, tenant="x", priority=-1)
    shared.runs({"b": [0, 1, 2]}, tenant="y")
    shared.runs({"b": [3, 4, 5]}, tenant="z")
    shared.job(tenant="x", gpus=2)
    assert shared.causes() == {low: "within_tenant"}


@pytest.mark.parametrize(
    ("held", "takes"),
    [
        pytest.param({"x": 4, "y": 8}, True, id="6/24 against 6/12"),
        pytest.param({"x": 6, "y": 6}, True, id="8/24 against 4/12"),
        pytest.param({"x": 8, "y": 4}, False, id="10/24 against 2/12"),
    ],
)
def test_weight_two_takes_until_it_has_twice_as_much(world: World, held: dict[str, int], takes: bool) -> None:
    world.node("a", gpus=12)
    world.cohort("all", gpus=12)
    world.tenant("x", 0, parent="all", weight=2, preemption=BOTH)
    world.tenant("y", 0, parent="all", preemption=BOTH)
    fill(world, held, size=2)
    world.job(tenant="x", gpus=2)
    assert bool(world.check().preemptions) is takes


def test_shares_are_compared_below_the_lowest_common_node(world: World) -> None:
    world.node("a")
    world.cohort("root", gpus=8)
    for cohort, tenants in (("left", "xy"), ("right", "z")):
        world.cohort(cohort, parent="root")
        for tenant in tenants:
            world.tenant(tenant, 0, parent=cohort, preemption=BOTH)
    jobs = fill(world, {"y": 2, "z": 6}, size=2)
    world.job(tenant="x", gpus=2)
    # left would have 4/8, right without one job 4/8. Between x and y alone, 2/8 against 0, it would be unjust.
    assert world.causes() == {jobs["z"][-1]: "fair_share"}


def test_without_reclaim_nothing_is_taken_from_others(shared: World) -> None:
    shared.tenant("x", 3, parent="all", preemption=Preemption(PreemptWithin.LOWER_PRIORITY))
    fill(shared, {"y": 9})
    shared.expect_waiting(shared.job(tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_own_jobs_that_left_make_room_for_a_just_comparison(world: World) -> None:
    world.node("a")
    world.cohort("all", gpus=8)
    for tenant in "xy":
        world.tenant(tenant, 0, parent="all", preemption=BOTH)
    own = world.runs({"a": [0, 1]}, tenant="x", priority=-1)
    jobs = [world.runs({"a": devices}, tenant="y", priority=0) for devices in ([2, 3], [4, 5], [6, 7])]
    world.job(tenant="x", gpus=4)
    # With its own job x would have 6/8 against 4/8 of y; without it 4/8, and y keeps 4/8.
    assert world.causes() == {own: "within_tenant", jobs[0]: "fair_share"}
