"""What Kueue's concept pages say that a ClusterQueue admits, decided on the converted manifests."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.sim import kueue, reading
from scheduler.sim.answers import answer
from tests.sim.kueue_manifests import GPU, admitted, converted, decided, flavor, group, pods, queue, thing, workload

TEAM_A = queue("team-a", group({"default-flavor": {"cpu": 9, "memory": "36Gi"}}), cohort="team-ab")
TEAM_B = queue("team-b", group({"default-flavor": {"cpu": 12, "memory": "48Gi"}}), cohort="team-ab")
LIMITED_A = queue("team-a", group({"default-flavor": {"cpu": {"nominalQuota": 9, "borrowingLimit": 1}}}), cohort="team-ab")
FREE_B = queue("team-b", group({"default-flavor": {"cpu": 12}}), cohort="team-ab")


def cpu_job(name: str, queue: str, cpus: int | str, memory: str = "0") -> Any:
    return workload(name, pods(cpu=cpus, memory=memory), queue=queue)


def started(*parts: Any, gpu_resource: str = GPU) -> list[str]:
    return list(decided(*parts, gpu_resource=gpu_resource)["starts"])


def places(*parts: Any) -> dict[str, str]:
    """Return the node on which each job starts; its name is the flavor's."""
    found = answer(reading.read(kueue.to_yaml(converted(*parts, gpu_resource="cpu"))))
    return {start["job"]: start["slices"][0]["node"] for start in found["starts"]}


@pytest.mark.parametrize(
    ("cpus", "memory", "starts"),
    [
        pytest.param(9, "36Gi", ["x"], id="exactly the quota"),
        pytest.param("9001m", "36Gi", [], id="a thousandth of a CPU too much"),
        pytest.param(9, str(36 * 2**30 + 1), [], id="a byte too much"),
    ],
)
def test_queue_admits_up_to_its_quota(cpus: int | str, memory: str, starts: list[str]) -> None:
    cluster_queue = queue("a", group({"default-flavor": {"cpu": 9, "memory": "36Gi"}}))
    assert started(cluster_queue, cpu_job("x", "a", cpus, memory)) == starts


@pytest.mark.parametrize(("cpus", "memory", "starts"), [(21, "84Gi", ["x"]), (22, "84Gi", []), (21, "85Gi", [])])
def test_queue_borrows_what_its_cohort_does_not_use(cpus: int, memory: str, starts: list[str]) -> None:
    assert started(TEAM_A, TEAM_B, cpu_job("x", "team-a", cpus, memory)) == starts


@pytest.mark.parametrize("resource", ["gpu", "cpu"])
def test_queue_within_its_quota_goes_before_a_borrower(resource: str) -> None:
    name = GPU if resource == "gpu" else resource
    queues = [queue(f"team-{team}", group({"h200": {name: amount}}), cohort="team-ab") for team, amount in (("a", 9), ("b", 12))]
    asked: dict[str, Any] = {resource: 1}
    borrower = workload("borrower", pods(12, **asked), queue="team-a", created="2026-03-01T08:00:00Z")
    owner = workload("owner", pods(12, **asked), queue="team-b", created="2026-03-01T09:00:00Z")
    assert decided(*queues, borrower, owner) == {"starts": ["owner"], "waiting": {"borrower": "quota_exceeded"}}


@pytest.mark.parametrize(("name", "cpus", "starts"), [("team-a", 10, ["x"]), ("team-a", 11, []), ("team-b", 21, ["x"]), ("team-b", 22, [])])
def test_borrowing_limit_bounds_its_own_queue_only(name: str, cpus: int, starts: list[str]) -> None:
    assert started(LIMITED_A, FREE_B, cpu_job("x", name, cpus)) == starts


@pytest.mark.parametrize(("cpus", "starts"), [(15, ["x"]), (16, [])])
def test_lending_limit_keeps_quota_back(cpus: int, starts: list[str]) -> None:
    lender = queue("team-b", group({"default-flavor": {"cpu": {"nominalQuota": 12, "lendingLimit": 6}}}), cohort="team-ab")
    borrower = queue("team-a", group({"default-flavor": {"cpu": 9}}), cohort="team-ab")
    assert started(borrower, lender, cpu_job("x", "team-a", cpus)) == starts


@pytest.mark.parametrize(("cpus", "starts"), [(12, ["x"]), (13, [])])
def test_queue_without_nominal_quota_uses_its_cohort_s_pool(cpus: int, starts: list[str]) -> None:
    cohort = thing("Cohort", "hello-cohort", {"resourceGroups": [group({"default-flavor": {"cpu": 12}})]})
    cluster_queue = queue("my", group({"default-flavor": {"cpu": 0}}), cohort="hello-cohort")
    assert started(cohort, cluster_queue, cpu_job("x", "my", cpus)) == starts


def test_queue_borrows_through_the_tree_of_cohorts() -> None:
    tree = [thing("Cohort", name, {"parentName": "root-cohort"}) for name in ("important-org", "regular-org")]
    lender = queue("regular", group({"h200": {GPU: 4}}), cohort="regular-org")
    borrower = queue("important", group({"h200": {GPU: 2}}), cohort="important-org")
    assert started(*tree, lender, borrower, workload("x", pods(6, gpu=1), queue="important")) == ["x"]


def test_queue_never_borrows_a_flavor_that_it_does_not_define() -> None:
    rich = queue("rich", group({"h200": {GPU: 8}, "l40s": {GPU: 8}}), cohort="c")
    poor = queue("poor", group({"l40s": {GPU: 0}}), cohort="c")
    held = workload("held", pods(8, gpu=1), queue="rich", status=admitted("rich", "2026-03-01T09:00:00Z", "l40s"))
    assert decided(rich, poor, held, workload("x", pods(gpu=1), queue="poor")) == {"starts": [], "waiting": {"x": "quota_exceeded"}}


def test_first_flavor_that_fits_is_assigned() -> None:
    cluster_queue = queue("a", group({"spot": {"cpu": 9}, "on-demand": {"cpu": 18}}))
    held = workload("held", pods(cpu=8), status=admitted("a", "2026-03-01T09:00:00Z", "spot", resource="cpu"))
    jobs = [workload("big", pods(cpu=2)), workload("small", pods(cpu=1))]
    assert places(cluster_queue, held, *jobs) == {"big": "on-demand", "small": "spot"}


def test_pods_of_a_workload_are_admitted_together_or_not_at_all() -> None:
    cluster_queue = queue("a", group({"h200": {GPU: 5}}))
    assert decided(flavor(), cluster_queue, workload("x", pods(3, gpu=2))) == {"starts": [], "waiting": {"x": "exceeds_maximum"}}


def test_waiting_workload_does_not_hold_back_a_younger_one_that_fits() -> None:
    held = workload("held", pods(gpu=3), status=admitted("a", "2026-03-01T09:00:00Z", "h200"))
    older = workload("older", pods(gpu=4), created="2026-03-01T09:01:00Z")
    younger = workload("younger", pods(gpu=1), created="2026-03-01T09:02:00Z")
    found = decided(queue("a", group({"h200": {GPU: 4}})), held, older, younger)
    assert found == {"starts": ["younger"], "waiting": {"older": "quota_exceeded"}}


def test_higher_priority_goes_first_then_the_older_workload() -> None:
    jobs = [
        workload("young", pods(gpu=1), created="2026-03-01T09:02:00Z"),
        workload("urgent", pods(gpu=1), created="2026-03-01T09:03:00Z", priority=100),
        workload("old", pods(gpu=1), created="2026-03-01T09:01:00Z"),
    ]
    assert started(queue("a", group({"h200": {GPU: 3}})), *jobs) == ["urgent", "old", "young"]


def test_quota_held_above_nominal_after_a_cut_is_kept() -> None:
    held = workload("held", pods(3, gpu=2), status=admitted("a", "2026-03-01T09:00:00Z", "h200"))
    found = decided(queue("a", group({"h200": {GPU: 4}})), held, workload("x", pods(gpu=1)))
    assert found == {"starts": [], "waiting": {"x": "quota_exceeded"}}
