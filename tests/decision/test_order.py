"""Who is served first: shares between tenants, priority and age inside one."""

from __future__ import annotations

from dataclasses import replace

from quotas.decay import Past
from tests.decision.world import World


def started(world: World) -> list[str]:
    return [start.job for start in world.check().starts]


def test_older_job_goes_first(world: World) -> None:
    world.node("a", gpus=1)
    world.job(submitted_ms=20)
    older = world.job(submitted_ms=10)
    assert started(world) == [older]


def test_jobs_submitted_at_once_go_in_order_of_arrival(world: World) -> None:
    world.node("a", gpus=1)
    first = world.job(gpus=1, limit_ms=7)
    world.job(gpus=1, limit_ms=5)
    assert started(world) == [first]


def test_higher_priority_goes_before_older(world: World) -> None:
    world.node("a", gpus=1)
    world.job(submitted_ms=-10)
    urgent = world.job(priority=1)
    assert started(world) == [urgent]


def test_tenant_that_borrows_less_goes_first_although_its_job_is_younger_and_less_urgent(world: World) -> None:
    world.node("a", gpus=8)
    world.cohort("all", gpus=8)
    world.tenant("x", 0, parent="all")
    world.tenant("y", 0, parent="all")
    world.runs({"a": [0, 1, 2, 3]}, tenant="x")
    world.job(gpus=4, tenant="x", priority=9, submitted_ms=-10)
    modest = world.job(gpus=4, tenant="y")
    assert started(world) == [modest]


def test_borrowed_gpus_alternate_between_equal_tenants(world: World) -> None:
    world.node("a", gpus=4)
    world.cohort("all", gpus=4)
    world.tenant("x", 0, parent="all")
    world.tenant("y", 0, parent="all")
    of_x = [world.job(tenant="x") for _ in range(4)]
    of_y = [world.job(tenant="y") for _ in range(4)]
    assert started(world) == [of_x[0], of_y[0], of_x[1], of_y[1]]


def test_weight_two_gets_twice_as_much(world: World) -> None:
    world.node("a", gpus=6)
    world.cohort("all", gpus=6)
    world.tenant("x", 0, parent="all", weight=1)
    world.tenant("y", 0, parent="all", weight=2)
    of_x = [world.job(tenant="x") for _ in range(6)]
    of_y = [world.job(tenant="y") for _ in range(6)]
    jobs = started(world)
    assert (len(set(jobs) & set(of_x)), len(set(jobs) & set(of_y))) == (2, 4)


def test_weight_zero_comes_last(world: World) -> None:
    world.node("a", gpus=2)
    world.cohort("all", gpus=2)
    world.tenant("x", 0, parent="all", weight=0)
    world.tenant("y", 0, parent="all")
    world.job(tenant="x", priority=5)
    of_y = [world.job(tenant="y") for _ in range(2)]
    assert started(world) == of_y


def test_shares_are_compared_at_the_level_of_the_cohort_first(world: World) -> None:
    world.node("a", gpus=8)
    world.cohort("root", gpus=8)
    world.cohort("left", parent="root")
    world.cohort("right", parent="root")
    world.tenant("x", 0, parent="left")
    world.tenant("y", 0, parent="left")
    world.tenant("z", 0, parent="right")
    world.runs({"a": [0, 1, 2, 3]}, tenant="x")
    world.runs({"a": [4, 5]}, tenant="z")
    world.job(tenant="y", submitted_ms=-10)
    of_right = world.job(tenant="z")
    assert started(world)[0] == of_right


def test_inside_a_tenant_priority_comes_before_the_share_of_projects(world: World) -> None:
    world.node("a", gpus=8)
    world.tenant("x", 8)
    world.project("p", parent="x")
    world.project("q", parent="x")
    world.runs({"a": [0, 1, 2, 3]}, tenant="p")
    of_q = world.job(tenant="q", submitted_ms=-10)
    urgent = world.job(tenant="p", priority=1)
    assert started(world) == [urgent, of_q]


def test_without_fair_sharing_jobs_within_nominal_quota_go_before_borrowers(world: World) -> None:
    world.policy = replace(world.policy, fair_sharing=False)
    world.node("a", gpus=1)
    world.cohort("all", gpus=8)
    world.tenant("x", 0, parent="all")
    world.tenant("y", 1, parent="all")
    world.job(tenant="x", priority=9, submitted_ms=-10)
    within = world.job(tenant="y")
    assert started(world) == [within]


def test_without_fair_sharing_priority_crosses_tenants(world: World) -> None:
    world.policy = replace(world.policy, fair_sharing=False)
    world.node("a", gpus=1)
    world.job(tenant="x", submitted_ms=-10)
    urgent = world.job(tenant="y", priority=1)
    assert started(world) == [urgent]


def test_without_fair_sharing_a_tenant_that_reaches_its_nominal_quota_falls_behind(world: World) -> None:
    world.policy = replace(world.policy, fair_sharing=False)
    world.node("a", gpus=2)
    world.cohort("all", gpus=8)
    world.tenant("x", 1, parent="all")
    world.tenant("y", 1, parent="all")
    of_x = [world.job(tenant="x", submitted_ms=-10) for _ in range(2)]
    of_y = world.job(tenant="y")
    assert started(world) == [of_x[0], of_y]


def sharing(world: World) -> None:
    """Tenants x and y without quota of their own in a cohort of four, on one node of four."""
    world.node("a", gpus=4)
    world.cohort("all", gpus=4)
    for tenant in "xy":
        world.tenant(tenant, 0, parent="all")


def test_tenant_that_borrowed_less_in_the_past_goes_first(world: World) -> None:
    sharing(world)
    world.past = Past({"x": {"gpu": 1}}, 64)
    world.job(tenant="x", gpus=4, submitted_ms=-9)
    of_y = world.job(tenant="y", gpus=4)
    assert started(world) == [of_y]


def test_tenant_without_a_past_does_not_get_everything_at_once(world: World) -> None:
    sharing(world)
    # x borrowed two GPUs on average, so y gets two before they take turns.
    past = Past({}, 64)
    world.past = Past({"x": {"gpu": 2_000 * past.scale // past.weight}}, 64)
    of_x = [world.job(tenant="x") for _ in range(4)]
    of_y = [world.job(tenant="y") for _ in range(4)]
    assert started(world) == [of_y[0], of_y[1], of_x[0], of_y[2]]
