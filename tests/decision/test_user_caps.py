"""What one person may hold of a tenant's GPUs, and how people of one project take turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from quotas.amount import Amount
from tests.decision.world import World


@pytest.fixture
def capped(world: World) -> World:
    world.node("a")
    world.tenant("x", 8)
    world.quota_nodes["x"] = replace(world.quota_nodes["x"], user_cap=Amount(3_000))
    return world


def test_user_at_the_cap_waits(capped: World) -> None:
    capped.runs({"a": [0, 1]}, user="ada")
    job = capped.job(gpus=2, user="ada")
    data: dict[str, ReasonValue] = {
        "user": "ada",
        "tenant": "x",
        "needed_milli_gpu": 2_000,
        "used_milli_gpu": 2_000,
        "cap_milli_gpu": 3_000,
    }
    assert capped.reason(job) == Reason(ReasonCode.USER_CAP, data, Unblock.OWN_JOB_ENDS)


def test_cap_may_be_reached(capped: World) -> None:
    capped.runs({"a": [0, 1]}, user="ada")
    capped.expect(capped.job(gpus=1, user="ada"), on="a")


def test_others_are_not_held_up_by_somebodys_cap(capped: World) -> None:
    capped.runs({"a": [0, 1, 2]}, user="ada")
    capped.job(gpus=1, user="ada", priority=9)
    capped.expect(capped.job(gpus=3, user="bob"), on="a")


def test_starts_of_one_decision_count(capped: World) -> None:
    jobs = [capped.job(gpus=2, user="ada") for _ in range(2)]
    assert [start.job for start in capped.check().starts] == jobs[:1]


def test_job_above_the_cap_can_never_start(capped: World) -> None:
    job = capped.job(gpus=4, user="ada")
    data: dict[str, ReasonValue] = {"limit": "user_cap", "user": "ada", "needed_milli_gpu": 4_000, "maximum_milli_gpu": 3_000}
    assert capped.reason(job) == Reason(ReasonCode.EXCEEDS_MAXIMUM, data, Unblock.MORE_QUOTA)


def test_cap_of_a_tenant_counts_over_its_projects(capped: World) -> None:
    for project in "pq":
        capped.project(project, parent="x")
    capped.runs({"a": [0, 1]}, tenant="p", user="ada")
    capped.expect_waiting(capped.job(gpus=2, tenant="q", user="ada"), ReasonCode.USER_CAP)


def test_jobs_without_a_user_are_not_capped(capped: World) -> None:
    capped.runs({"a": [0, 1, 2]})
    capped.expect(capped.job(gpus=4), on="a")


def test_jobs_without_gpus_are_not_capped(capped: World) -> None:
    capped.runs({"a": [0, 1, 2]}, user="ada")
    capped.expect(capped.job(gpus=0, cpus=4, user="ada"), on="a")


def test_users_of_one_project_take_turns(world: World) -> None:
    world.node("a", gpus=4)
    world.tenant("x", 4)
    of_ada = [world.job(user="ada", submitted_ms=-9) for _ in range(4)]
    of_bob = [world.job(user="bob") for _ in range(4)]
    assert [start.job for start in world.check().starts] == [of_ada[0], of_bob[0], of_ada[1], of_bob[1]]


def test_priority_comes_before_what_users_hold(world: World) -> None:
    world.node("a", gpus=2)
    world.tenant("x", 2)
    world.runs({"a": [0]}, user="ada")
    urgent = world.job(user="ada", priority=1)
    world.job(user="bob")
    assert [start.job for start in world.check().starts] == [urgent]
