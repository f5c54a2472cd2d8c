"""Taking back through nested cohorts and between projects: who counts as borrowing, and from whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from quotas.tree import BorrowPreempt, NodeKind, Preemption, PreemptWithin, QuotaNode, Reclaim
from scheduler.decision.snapshot import Victims
from tests.decision.world import World

RECLAIM = Preemption(reclaim_within_cohort=Reclaim.ANY)
LOWER = Preemption(PreemptWithin.LOWER_PRIORITY)


@pytest.fixture
def nested(world: World) -> World:
    """Cohorts left and right with four GPUs each below one root; x and y own nothing in left, z nothing in right."""
    world.policy = replace(world.policy, fair_sharing=False, victims=Victims.KUEUE)
    world.node("a")
    world.cohort("root")
    world.cohort("left", parent="root", gpus=4)
    world.cohort("right", parent="root", gpus=4)
    world.tenant("x", 0, parent="left", preemption=RECLAIM)
    world.tenant("y", 0, parent="left")
    world.tenant("z", 0, parent="right")
    return world


def test_member_takes_back_what_its_cohort_lent(nested: World) -> None:
    lent = nested.runs({"a": range(8)}, tenant="z", priority=9)
    nested.expect_preempted(nested.job(gpus=2, tenant="x"), lent)
    assert nested.causes() == {lent: "reclaim"}


def test_member_of_a_cohort_that_borrows_takes_nothing_back(nested: World) -> None:
    nested.runs({"a": range(4)}, tenant="y")
    nested.runs({"a": range(4, 8)}, tenant="z")
    nested.expect_waiting(nested.job(gpus=2, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_borrower_below_a_cohort_within_its_own_quota_is_safe(nested: World) -> None:
    nested.cohort("right", parent="root", gpus=8)
    nested.cohort("left", parent="root", gpus=2)
    nested.runs({"a": range(8)}, tenant="z")
    nested.tenant("w", 0, parent="root")
    nested.node("b")
    lent = nested.runs({"b": [0, 1]}, tenant="w", started_ms=-9)
    # z borrows from right, which lends nothing to left; what x lacks is with w.
    nested.expect_preempted(nested.job(gpus=2, tenant="x"), lent)


def test_member_that_borrows_inside_its_cohort_takes_nothing_inside_it(nested: World) -> None:
    nested.tenant("v", 0, parent="left")
    nested.runs({"a": range(4)}, tenant="v", priority=-9)
    nested.cohort("right", parent="root")
    nested.expect_waiting(nested.job(gpus=2, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


@pytest.mark.parametrize("fair_sharing", [True, False])
def test_borrower_in_cohorts_that_name_no_quota_gives_back(world: World, *, fair_sharing: bool) -> None:
    world.policy = replace(world.policy, fair_sharing=fair_sharing)
    world.node("a", gpus=4)
    world.quota_nodes["root"] = QuotaNode("root", NodeKind.COHORT)
    world.quota_nodes["left"] = QuotaNode("left", NodeKind.COHORT, "root")
    world.tenant("x", 4, parent="root", preemption=RECLAIM)
    world.tenant("y", 0, parent="left")
    lent = world.runs({"a": range(4)}, tenant="y")
    world.expect_preempted(world.job(gpus=2, tenant="x"), lent)


def projects(world: World, first: int, second: int) -> None:
    world.policy = replace(world.policy, fair_sharing=False)
    world.node("a")
    world.tenant("x", 4, preemption=LOWER)
    world.project("p", first, parent="x")
    world.project("q", second, parent="x")


def test_sibling_project_without_quota_of_its_own_yields_to_priority(world: World) -> None:
    projects(world, 0, 0)
    low = world.runs({"a": range(4)}, tenant="p", priority=-1)
    world.expect_preempted(world.job(gpus=2, tenant="q"), low)
    assert world.causes() == {low: "within_tenant"}


def test_sibling_project_keeps_what_it_was_given(world: World) -> None:
    projects(world, 4, 2)
    world.tenant("x", 0, preemption=LOWER)
    world.runs({"a": range(4)}, tenant="p", priority=-1)
    world.runs({"a": [4, 5]}, tenant="q")
    world.expect_waiting(world.job(gpus=2, tenant="q"), ReasonCode.QUOTA_EXCEEDED)


def test_projects_policy_comes_before_its_tenants(world: World) -> None:
    projects(world, 0, 0)
    world.quota_nodes["q"] = replace(world.quota_nodes["q"], preemption=Preemption(PreemptWithin.LOWER_OR_NEWER_EQUAL))
    newer = world.runs({"a": range(4)}, tenant="p", started_ms=0)
    world.expect_preempted(world.job(gpus=2, tenant="q", submitted_ms=-5), newer)


def test_lent_quota_comes_back_before_anything_is_taken_by_priority(nested: World) -> None:
    both = Preemption(reclaim_within_cohort=Reclaim.ANY, borrow_within_cohort=BorrowPreempt.LOWER_PRIORITY)
    nested.tenant("x", 0, parent="left", preemption=both)
    nested.runs({"a": [0, 1]}, tenant="y", priority=-9)
    nested.runs({"a": [2, 3, 4, 5]}, tenant="z", priority=1)
    lent = nested.runs({"a": [6, 7]}, tenant="z")
    # left holds 2 of its 4 and takes its own back from z; the job of y is less important, but it stands in left itself.
    nested.expect_preempted(nested.job(gpus=2, tenant="x"), lent)
