"""Why jobs wait: every gate has its code, its numbers and what would unblock the job."""

from __future__ import annotations

import pytest

from domain.reasons import ReasonCode, Unblock
from tests.decision.world import World


def test_model_absent_from_the_quota_is_not_permitted(world: World) -> None:
    world.node("a", model="l40s")
    world.tenant("x", 8, models=("h200",))
    job = world.job(models=("l40s",))
    reason = world.expect_waiting(job, ReasonCode.NOT_PERMITTED)
    assert reason.unblocks_when is Unblock.MORE_QUOTA


def test_project_without_a_quota_of_its_own_uses_its_tenants(world: World) -> None:
    world.node("a")
    world.tenant("x", 2)
    world.project("p", parent="x")
    jobs = [world.job(tenant="p") for _ in range(3)]
    assert [start.job for start in world.check().starts] == jobs[:2]


def test_more_than_the_quota_could_ever_give_exceeds_the_maximum(world: World) -> None:
    world.node("a")
    world.tenant("x", 4)
    job = world.job(gpus=5)
    reason = world.expect_waiting(job, ReasonCode.EXCEEDS_MAXIMUM)
    assert reason.data == {"limit": "quota", "resource": "h200", "needed_milli_gpu": 5000, "maximum_milli_gpu": 4000}


def test_more_than_any_node_has_exceeds_the_maximum(world: World) -> None:
    world.node("a", gpus=4)
    world.node("b", gpus=4)
    job = world.job(gpus=5)
    reason = world.expect_waiting(job, ReasonCode.EXCEEDS_MAXIMUM)
    assert reason.data["largest_node_gpus"] == 4
    assert reason.unblocks_when is Unblock.CHANGE_THE_JOB


def test_job_for_a_drained_node_can_still_start_one_day(world: World) -> None:
    world.node("a", gpus=8, is_schedulable=False)
    job = world.job(gpus=8)
    world.expect_waiting(job, ReasonCode.NO_CAPACITY)


def test_tenant_at_its_nominal_quota_waits_for_its_own_jobs(world: World) -> None:
    world.node("a")
    world.tenant("x", 4)
    world.runs({"a": [0, 1]}, tenant="x")
    job = world.job(gpus=3)
    reason = world.expect_waiting(job, ReasonCode.QUOTA_EXCEEDED)
    assert reason.data == {
        "resource": "h200",
        "needed_milli_gpu": 3000,
        "available_milli_gpu": 2000,
        "used_milli_gpu": 2000,
        "nominal_milli_gpu": 4000,
    }
    assert reason.unblocks_when is Unblock.OWN_JOB_ENDS


def test_tenant_borrows_what_the_cohort_does_not_use(world: World) -> None:
    world.node("a")
    world.cohort("all")
    world.tenant("x", 2, parent="all")
    world.tenant("y", 4, parent="all")
    job = world.job(gpus=5, tenant="x")
    plan = world.check()
    assert [(start.job, start.borrowed) for start in plan.starts] == [(job, {"h200": 3000})]


def test_lending_limit_keeps_quota_back(world: World) -> None:
    world.node("a")
    world.cohort("all")
    world.tenant("x", 2, parent="all")
    world.tenant("y", 4, parent="all", lend=1)
    fits = world.job(gpus=3, tenant="x")
    too_much = world.job(gpus=4, tenant="x")
    world.expect(fits, on="a")
    world.expect_waiting(too_much, ReasonCode.EXCEEDS_MAXIMUM)


def test_borrowing_limit_has_its_own_code(world: World) -> None:
    world.node("a")
    world.cohort("all")
    world.tenant("x", 2, parent="all", borrow=1)
    world.tenant("y", 6, parent="all")
    world.runs({"a": [0, 1]}, tenant="x")
    job = world.job(gpus=2, tenant="x")
    world.expect_waiting(job, ReasonCode.BORROWING_LIMIT)


def test_blocked_gang_does_not_stop_a_smaller_job(world: World) -> None:
    world.node("a")
    world.tenant("x", 8)
    world.runs({"a": [0]}, tenant="x")
    gang = world.job(gpus=8)
    small = world.job(gpus=1)
    world.expect_waiting(gang, ReasonCode.QUOTA_EXCEEDED)
    world.expect(small, on="a")


def test_unknown_tenant_is_invalid(world: World) -> None:
    world.node("a")
    job = world.job(tenant="x")
    world.cohort("x")
    reason = world.expect_waiting(job, ReasonCode.INVALID)
    assert reason.data == {"field": "tenant"}


def test_job_without_gpus_and_cpus_is_invalid(world: World) -> None:
    world.node("a")
    job = world.job(gpus=0)
    world.expect_waiting(job, ReasonCode.INVALID)


def test_usage_over_a_quota_that_was_cut_only_blocks_new_starts(world: World) -> None:
    world.node("a")
    world.tenant("x", 1)
    world.runs({"a": [0, 1, 2]}, tenant="x")
    job = world.job()
    reason = world.expect_waiting(job, ReasonCode.QUOTA_EXCEEDED)
    assert reason.data["available_milli_gpu"] == 0


@pytest.mark.parametrize(("gpus", "borrowed"), [(2, {}), (3, {"h200": 1_000})], ids=["all of its own", "one more"])
def test_start_names_the_models_that_it_borrows_and_no_others(world: World, gpus: int, borrowed: dict[str, int]) -> None:
    world.node("a")
    world.cohort("all", gpus=4)
    world.tenant("x", 2, parent="all")
    world.job(gpus=gpus)
    assert [start.borrowed for start in world.check().starts] == [borrowed]


def test_job_larger_than_every_node_is_told_the_largest(world: World) -> None:
    for name, gpus in (("a", 4), ("b", 8), ("c", 2)):
        world.node(name, gpus=gpus)
    reason = world.expect_waiting(world.job(gpus=9), ReasonCode.EXCEEDS_MAXIMUM)
    assert (reason.data["largest_node_gpus"], reason.data["maximum_replicas"]) == (8, 0)
