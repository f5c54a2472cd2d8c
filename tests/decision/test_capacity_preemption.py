"""Quota allows the start, but no device is free: victims by the same rules, and never from somebody within its own quota."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from quotas.tree import Preemption, PreemptWithin, Reclaim
from tests.decision.world import HOUR_MS, World

BOTH = Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY)


@pytest.mark.parametrize("fair_sharing", [True, False], ids=["fair sharing", "by priority"])
def test_job_gives_back_whoever_does_not_free_its_node(world: World, fair_sharing: bool) -> None:
    world.policy = replace(world.policy, fair_sharing=fair_sharing)
    world.node("a")
    world.node("b")
    world.tenant("x", 16, preemption=BOTH)
    world.runs({"a": [0]}, priority=-3)
    alone = world.runs({"b": [0]}, priority=-2)
    world.runs({"a": [1]}, priority=-1)
    job = world.job(gpus=8)
    world.expect_preempted(job, alone)
    assert {piece.node for piece in world.check().nominations[0].slices} == {"b"}


@pytest.mark.parametrize("fair_sharing", [True, False], ids=["fair sharing", "by priority"])
def test_tenants_within_their_own_quotas_take_nothing_from_one_another(world: World, fair_sharing: bool) -> None:
    world.policy = replace(world.policy, fair_sharing=fair_sharing)
    world.node("a")
    world.cohort("all")
    for tenant in "xy":
        world.tenant(tenant, 8, parent="all", preemption=BOTH)
    world.runs({"a": range(8)}, tenant="y", priority=-9)
    world.expect_waiting(world.job(tenant="x"), ReasonCode.NO_CAPACITY)


@pytest.mark.parametrize("fair_sharing", [True, False], ids=["fair sharing", "by priority"])
def test_borrower_leaves_for_somebody_within_its_own_quota(world: World, fair_sharing: bool) -> None:
    world.policy = replace(world.policy, fair_sharing=fair_sharing)
    world.node("a")
    world.cohort("all")
    world.tenant("x", 8, parent="all", preemption=BOTH)
    world.tenant("y", 4, parent="all", preemption=BOTH)
    lent = world.runs({"a": range(8)}, tenant="y")
    world.expect_preempted(world.job(tenant="x", gpus=4), lent)
    assert world.causes() == {lent: "reclaim"}


def test_strangers_without_a_common_cohort_take_nothing(world: World) -> None:
    world.node("a")
    world.tenant("x", 8, preemption=BOTH)
    world.tenant("y", 1, preemption=BOTH)
    world.runs({"a": range(8)}, tenant="y", priority=-9)  # above its own quota, which was cut
    world.expect_waiting(world.job(tenant="x"), ReasonCode.NO_CAPACITY)


def test_nobody_leaves_when_that_would_not_be_enough(world: World) -> None:
    world.node("a")
    world.tenant("x", 16, preemption=BOTH)
    world.runs({"a": range(4)}, priority=-1)
    world.runs({"a": [4]}, priority=5)
    world.expect_waiting(world.job(gpus=8), ReasonCode.NO_CAPACITY)


def test_nobody_leaves_for_a_job_that_would_delay_a_blocked_one(world: World) -> None:
    world.node("a")
    world.tenant("x", 16)
    world.tenant("y", 8, preemption=BOTH)
    world.runs({"a": [0, 1, 2, 3]}, tenant="x", limit_ms=HOUR_MS)
    world.runs({"a": [4, 5, 6, 7]}, tenant="y", limit_ms=HOUR_MS, priority=-1)
    world.job(gpus=8, tenant="x", submitted_ms=-1, limit_ms=HOUR_MS, priority=1)
    # The blocked job of x holds the node in an hour; a job of y for longer than that must not stand on it.
    world.job(gpus=2, tenant="y", limit_ms=2 * HOUR_MS)
    assert world.check().preemptions == ()


def test_job_without_gpus_takes_cpus_by_the_same_rules(world: World) -> None:
    world.node("a", gpus=0)
    world.tenant("x", 8, preemption=BOTH)
    low = world.runs({"a": []}, cpus=128, priority=-1, flavor=None)
    world.expect_preempted(world.job(gpus=0, cpus=1), low)
