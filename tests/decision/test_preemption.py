"""Whom a job may stop without fair sharing, and in which order: Kueue's rules, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from quotas.amount import Amount
from quotas.tree import BorrowPreempt, Preemption, PreemptWithin, Quota, Reclaim
from scheduler.decision.snapshot import Victims
from tests.decision.world import World

LOWER = Preemption(PreemptWithin.LOWER_PRIORITY)
NEWER = Preemption(PreemptWithin.LOWER_OR_NEWER_EQUAL)
RECLAIM = Preemption(reclaim_within_cohort=Reclaim.ANY)
RECLAIM_LOWER = Preemption(reclaim_within_cohort=Reclaim.LOWER_PRIORITY)


@pytest.fixture
def plain(world: World) -> World:
    """Two nodes of eight, no fair sharing, Kueue's order of victims."""
    world.policy = replace(world.policy, fair_sharing=False, victims=Victims.KUEUE)
    world.node("a")
    world.node("b")
    return world


def borrowing(world: World, policy: Preemption, *, nominal: int = 4) -> None:
    """Tenant x with this policy, and y without one, in a cohort; each owns `nominal` GPUs."""
    world.cohort("all")
    world.tenant("x", nominal, parent="all", preemption=policy)
    world.tenant("y", nominal, parent="all")


def test_lower_priority_of_the_own_tenant_leaves(plain: World) -> None:
    plain.tenant("x", 4, preemption=LOWER)
    low = plain.runs({"a": [0, 1]}, priority=-1)
    plain.runs({"a": [2, 3]}, priority=0)
    job = plain.job(gpus=2, priority=1)
    plain.expect_preempted(job, low)
    assert plain.causes() == {low: "within_tenant"}


def test_equal_priority_stays_with_lower_priority_only(plain: World) -> None:
    plain.tenant("x", 4, preemption=LOWER)
    plain.runs({"a": [0, 1, 2, 3]}, priority=1)
    job = plain.job(gpus=2, priority=1)
    plain.expect_waiting(job, ReasonCode.QUOTA_EXCEEDED)


def test_without_a_policy_nobody_leaves(plain: World) -> None:
    plain.tenant("x", 4)
    plain.runs({"a": [0, 1, 2, 3]}, priority=-9)
    job = plain.job(gpus=2, priority=9)
    plain.expect_waiting(job, ReasonCode.QUOTA_EXCEEDED)


@pytest.mark.parametrize(("submitted_ms", "leaves"), [(-1, True), (0, False), (1, False)], ids=["older", "as old", "newer"])
def test_newer_job_of_equal_priority_leaves_for_an_older_one(plain: World, submitted_ms: int, leaves: bool) -> None:
    plain.tenant("x", 4, preemption=NEWER)
    plain.runs({"a": [0, 1, 2, 3]}, started_ms=0)
    plain.job(gpus=4, submitted_ms=submitted_ms)
    assert bool(plain.check().preemptions) is leaves


def test_victims_are_as_few_as_possible(plain: World) -> None:
    plain.tenant("x", 6, preemption=LOWER)
    plain.runs({"a": [0]}, priority=-3)
    plain.runs({"a": [1]}, priority=-2)
    big = plain.runs({"a": [2, 3, 4, 5]}, priority=-1)
    job = plain.job(gpus=4, priority=1)
    plain.expect_preempted(job, big)


def test_newest_leaves_first_among_equals(plain: World) -> None:
    plain.tenant("x", 4, preemption=LOWER)
    plain.runs({"a": [0, 1]}, started_ms=-20, priority=-1)
    newest = plain.runs({"a": [2, 3]}, started_ms=-10, priority=-1)
    plain.expect_preempted(plain.job(gpus=2), newest)


def test_first_in_order_of_arrival_leaves_among_those_started_at_once(plain: World) -> None:
    plain.tenant("x", 4, preemption=LOWER)
    first = plain.runs({"a": [0, 1]}, priority=-1)
    plain.runs({"a": [2, 3]}, priority=-1)
    plain.expect_preempted(plain.job(gpus=2), first)


def test_lent_quota_is_taken_back_whatever_the_priority(plain: World) -> None:
    borrowing(plain, RECLAIM)
    plain.runs({"a": [0, 1, 2, 3]}, tenant="y", priority=99)
    lent = plain.runs({"a": [4, 5, 6, 7]}, tenant="y", priority=9)
    plain.expect_preempted(plain.job(gpus=2, tenant="x"), lent)
    assert plain.causes() == {lent: "reclaim"}


def test_reclaim_from_lower_priorities_spares_the_others(plain: World) -> None:
    borrowing(plain, RECLAIM_LOWER)
    plain.runs({"a": range(8)}, tenant="y", priority=1)
    plain.expect_waiting(plain.job(gpus=2, tenant="x", priority=1), ReasonCode.QUOTA_EXCEEDED)


def test_nobody_within_its_own_quota_is_a_victim_of_reclaim(plain: World) -> None:
    borrowing(plain, RECLAIM)
    plain.tenant("z", 4, parent="all")
    plain.runs({"a": [0, 1, 2, 3]}, tenant="y", priority=-9)
    lent = plain.runs({"a": [4, 5, 6, 7]}, tenant="z")
    also_lent = plain.runs({"b": [0, 1, 2, 3]}, tenant="z", started_ms=-5)
    plain.expect_preempted(plain.job(gpus=4, tenant="x"), lent)
    assert also_lent not in plain.causes()


def test_reclaim_stops_where_the_borrower_is_back_at_its_own_quota(plain: World) -> None:
    borrowing(plain, RECLAIM)
    plain.runs({"a": [0, 1, 2]}, tenant="y")
    plain.runs({"a": [3, 4]}, tenant="y")
    plain.runs({"a": [5, 6, 7]}, tenant="x")
    # y holds 5 of its 4; once one job is gone it borrows nothing, and x would need more than that.
    plain.expect_waiting(plain.job(gpus=4, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_borrower_takes_nothing_from_other_borrowers(plain: World) -> None:
    borrowing(plain, RECLAIM, nominal=2)
    plain.cohort("all", gpus=2)
    plain.runs({"a": [0, 1]}, tenant="x")
    plain.runs({"a": [2, 3, 4, 5]}, tenant="y", priority=-9)
    plain.expect_waiting(plain.job(gpus=2, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


@pytest.mark.parametrize(
    ("highest", "leaves"),
    [pytest.param(None, True, id="without a threshold"), pytest.param(-1, True, id="at it"), pytest.param(-2, False, id="above it")],
)
def test_borrower_takes_from_lower_priorities_up_to_the_threshold(plain: World, highest: int | None, leaves: bool) -> None:
    borrowing(plain, Preemption(PreemptWithin.NEVER, Reclaim.ANY, BorrowPreempt.LOWER_PRIORITY, highest), nominal=0)
    plain.cohort("all", gpus=4)
    low = plain.runs({"a": [0, 1, 2, 3]}, tenant="y", priority=-1)
    plain.job(gpus=2, tenant="x")
    assert plain.causes() == ({low: "borrow"} if leaves else {})


def test_borrower_takes_nothing_from_equal_priority(plain: World) -> None:
    borrowing(plain, Preemption(PreemptWithin.NEVER, Reclaim.ANY, BorrowPreempt.LOWER_PRIORITY), nominal=0)
    plain.cohort("all", gpus=4)
    plain.runs({"a": [0, 1, 2, 3]}, tenant="y")
    plain.expect_waiting(plain.job(gpus=2, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_borrowers_of_others_leave_before_the_own_jobs(plain: World) -> None:
    borrowing(plain, Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY))
    own = plain.runs({"a": [0, 1]}, tenant="x", priority=-9)
    lent = plain.runs({"a": [2, 3, 4, 5, 6, 7]}, tenant="y")
    plain.expect_preempted(plain.job(gpus=2, tenant="x"), lent)
    assert own not in plain.causes()


def test_job_larger_than_its_own_quota_takes_nothing_while_it_may_not_borrow_by_force(plain: World) -> None:
    borrowing(plain, Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY))
    plain.runs({"a": [0, 1, 2, 3]}, tenant="x", priority=-1)
    plain.runs({"b": [0, 1, 2, 3]}, tenant="y")
    plain.expect_waiting(plain.job(gpus=6, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


def test_own_jobs_leave_for_one_that_borrows_when_nobody_else_can(plain: World) -> None:
    borrowing(plain, LOWER)
    own = plain.runs({"a": [0, 1, 2, 3, 4, 5]}, tenant="x", priority=-1)
    plain.runs({"b": [0, 1]}, tenant="y")
    plain.expect_preempted(plain.job(gpus=4, tenant="x"), own)


def test_least_lost_work_decides_among_equals(plain: World) -> None:
    plain.policy = replace(plain.policy, victims=Victims.LEAST_LOST)
    plain.now_ms = 100_000
    plain.tenant("x", 4, preemption=LOWER)
    saved = plain.runs({"a": [0, 1]}, started_ms=0, priority=-1, checkpoint_ms=99_000)
    plain.runs({"a": [2, 3]}, started_ms=90_000, priority=-1)
    plain.expect_preempted(plain.job(gpus=2), saved)


def test_what_is_not_preemptible_stays(plain: World) -> None:
    plain.tenant("x", 4, preemption=LOWER)
    plain.runs({"a": [0, 1, 2, 3]}, priority=-1, is_preemptible=False)
    plain.expect_waiting(plain.job(gpus=2), ReasonCode.QUOTA_EXCEEDED)


@pytest.mark.parametrize(("started_ms", "leaves"), [(-59_999, False), (-60_000, True)], ids=["younger", "old enough"])
def test_minimum_runtime_protects_the_young(plain: World, started_ms: int, leaves: bool) -> None:
    plain.policy = replace(plain.policy, min_runtime_ms=60_000)
    plain.tenant("x", 4, preemption=LOWER)
    plain.runs({"a": [0, 1, 2, 3]}, priority=-1, started_ms=started_ms)
    plain.job(gpus=2)
    assert bool(plain.check().preemptions) is leaves


@pytest.mark.parametrize(("recent_ms", "victims"), [(-3_600_000, 2), (-3_599_999, 1)], ids=["an hour ago", "within the hour"])
def test_pool_loses_no_more_victims_an_hour_than_allowed(plain: World, recent_ms: int, victims: int) -> None:
    plain.policy = replace(plain.policy, preemptions_per_hour=2)
    plain.recent_preemptions = {("hanoi", "h200"): [recent_ms]}
    plain.tenant("x", 2, preemption=LOWER)
    for device in range(2):
        plain.runs({"a": [device]}, priority=-1)
        plain.job(gpus=1)
    assert len(plain.check().preemptions) == victims


def test_others_come_before_own_jobs_while_the_taker_does_not_borrow_in_the_end(plain: World) -> None:
    plain.cohort("all")
    plain.tenant("x", 6, parent="all", preemption=Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY))
    plain.tenant("y", 2, parent="all")
    plain.runs({"a": [0, 1]}, tenant="x", priority=-2)
    own = plain.runs({"a": [2, 3, 4]}, tenant="x", priority=-1)
    plain.runs({"b": [0, 1]}, tenant="y", priority=1)
    lent = plain.runs({"b": [2]}, tenant="y")
    # By own jobs alone it would take both of x and borrow; with what y borrowed one of them is enough.
    plain.expect_preempted(plain.job(gpus=4, tenant="x"), own, lent)
    assert plain.causes() == {own: "within_tenant", lent: "reclaim"}


def test_job_larger_than_its_own_quota_takes_not_even_own_jobs_to_borrow(plain: World) -> None:
    borrowing(plain, Preemption(PreemptWithin.LOWER_PRIORITY, Reclaim.ANY))
    plain.runs({"a": [0, 1, 2, 3]}, tenant="x", priority=-1)
    plain.expect_waiting(plain.job(gpus=6, tenant="x"), ReasonCode.QUOTA_EXCEEDED)


@pytest.mark.parametrize(("cpus", "leaves"), [(8, True), (9, False)], ids=["within", "above"])
def test_job_takes_only_when_it_is_within_its_own_quota_of_all_that_it_lacks(plain: World, cpus: int, leaves: bool) -> None:
    borrowing(plain, LOWER)
    for tenant in "xy":
        node = plain.quota_nodes[tenant]
        plain.quota_nodes[tenant] = replace(node, quotas={**node.quotas, "cpu": Quota(Amount(8_000))})
    own = [plain.runs({"a": range(4)}, tenant="x", priority=-1, cpus=8), plain.runs({"b": range(4)}, tenant="y", cpus=4)][0]
    plain.job(gpus=4, tenant="x", cpus=cpus)
    assert plain.causes() == ({own: "within_tenant"} if leaves else {})
