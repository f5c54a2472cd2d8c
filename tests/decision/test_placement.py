"""Where jobs go: gangs whole or not at all, on one site, compact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode, Unblock
from scheduler.decision.snapshot import Device, Placement
from tests.decision.world import World


def test_job_starts_on_a_free_node(world: World) -> None:
    world.node("a")
    job = world.job(gpus=4)
    world.expect(job, on="a")


def test_each_start_is_seen_by_the_next_job(world: World) -> None:
    world.node("a", gpus=8)
    jobs = [world.job(gpus=4) for _ in range(3)]
    plan = world.check()
    assert [start.job for start in plan.starts] == jobs[:2]
    world.expect_waiting(jobs[2], ReasonCode.NO_CAPACITY)


def test_replica_never_splits_over_nodes(world: World) -> None:
    world.node("a", gpus=3)
    world.node("b", gpus=3)
    world.node("c", gpus=4)
    world.runs({"c": [0]})
    job = world.job(gpus=4)
    reason = world.expect_waiting(job, ReasonCode.FRAGMENTED)
    assert reason.data["free_gpus"] == 9
    assert reason.data["largest_free_block_gpus"] == 3
    assert reason.unblocks_when is Unblock.ANY_JOB_ENDS


def test_gang_starts_all_replicas_or_none(world: World) -> None:
    world.node("a", gpus=8)
    world.node("b", gpus=8)
    world.runs({"b": [0]})
    job = world.job(gpus=8, replicas=2)
    world.expect_waiting(job, ReasonCode.NO_CAPACITY)


def test_gang_never_spans_two_sites(world: World) -> None:
    for name, site in [("a", "hanoi"), ("b", "hue"), ("c", "hue")]:
        world.node(name, gpus=8, site=site)
    world.runs({"c": [0]})
    job = world.job(gpus=8, replicas=2)
    world.expect_waiting(job, ReasonCode.TOPOLOGY)


def test_gang_prefers_one_node_to_two(world: World) -> None:
    world.node("a", gpus=2)
    world.node("b", gpus=4)
    job = world.job(gpus=2, replicas=2)
    world.expect(job, on="b")


def test_gang_prefers_one_rack_to_two(world: World) -> None:
    for name, rack in [("a", "r1"), ("b", "r2"), ("c", "r2")]:
        world.node(name, gpus=4, rack=rack)
    job = world.job(gpus=4, replicas=2)
    world.expect(job, on=("b", "c"))


def test_gang_of_three_uses_the_fewest_nodes(world: World) -> None:
    world.node("a", gpus=2)
    world.node("b", gpus=4)
    world.node("c", gpus=2)
    job = world.job(gpus=2, replicas=3)
    world.expect(job, on=("b", "a"))


@pytest.mark.parametrize(
    ("placement", "node"),
    [
        pytest.param(Placement.FIRST_FIT, "a", id="first fit takes the first node"),
        pytest.param(Placement.BEST_FIT, "b", id="best fit takes the tightest node"),
        pytest.param(Placement.FRAGMENTATION, "b", id="fragmentation takes the tightest node"),
        pytest.param(Placement.SPREAD, "c", id="spread takes the emptiest node"),
    ],
)
def test_placement_policy_chooses_the_node(world: World, placement: Placement, node: str) -> None:
    for name, gpus in [("a", 4), ("b", 2), ("c", 8)]:
        world.node(name, gpus=gpus)
    world.policy = replace(world.policy, placement=placement)
    job = world.job(gpus=2)
    world.expect(job, on=node)


def test_spread_puts_replicas_on_different_nodes(world: World) -> None:
    world.node("a", gpus=4)
    world.node("b", gpus=4)
    world.policy = replace(world.policy, placement=Placement.SPREAD)
    job = world.job(gpus=1, replicas=2)
    world.expect(job, on=("a", "b"))


def test_job_waits_for_cpu_although_gpus_are_free(world: World) -> None:
    world.node("a", cpu_milli=16_000)
    world.runs({"a": [0]}, cpus=12)
    job = world.job(gpus=1, cpus=8)
    reason = world.expect_waiting(job, ReasonCode.NO_CAPACITY)
    assert reason.data["largest_free_cpu_milli"] == 4_000


def test_job_without_gpus_leaves_gpu_nodes_alone(world: World) -> None:
    world.node("a", gpus=8)
    world.node("b", gpus=0)
    job = world.job(gpus=0, cpus=4)
    world.expect(job, on="b")


def test_job_goes_only_to_the_sites_it_names(world: World) -> None:
    world.node("a", site="hanoi")
    world.node("b", site="hue")
    job = world.job(sites=["hue"])
    world.expect(job, on="b")


def test_second_flavor_is_used_when_the_first_is_full(world: World) -> None:
    world.node("a", gpus=1, model="h200")
    world.node("b", gpus=1, model="l40s")
    world.tenant("x", models=("h200", "l40s"))
    world.runs({"a": [0]})
    job = world.job(models=("h200", "l40s"))
    world.expect(job, on="b")


def test_drained_node_gets_no_new_job(world: World) -> None:
    world.node("a", is_schedulable=False)
    job = world.job()
    reason = world.expect_waiting(job, ReasonCode.NO_CAPACITY)
    assert reason.unblocks_when is Unblock.NODE_RETURNS


def test_gang_stays_on_one_node_where_the_operator_says_so(world: World) -> None:
    world.node("a", gpus=4)
    world.node("b", gpus=4)
    world.policy = replace(world.policy, spans_nodes=False)
    job = world.job(gpus=4, replicas=2)
    world.expect_waiting(job, ReasonCode.EXCEEDS_MAXIMUM)


def test_device_of_another_model_on_a_node_is_given_to_nobody(world: World) -> None:
    world.node("a")
    devices = tuple(Device(index, "l40s" if index == 1 else "h200") for index in range(3))
    world.nodes.append(replace(world.nodes.pop(), devices=devices))
    both = world.job(gpus=2)
    too_many = world.job(gpus=3)
    assert [piece.device_index for start in world.check().starts if start.job == both for piece in start.slices] == [0, 2]
    world.expect_waiting(too_many, ReasonCode.EXCEEDS_MAXIMUM)
