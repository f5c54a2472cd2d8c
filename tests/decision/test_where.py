"""Labels, taints, sites and closeness: on which nodes a job may stand, and why it may stand on none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.reasons import ReasonCode
from scheduler.decision.snapshot import Device, Placement
from scheduler.decision.where import Where, Within
from tests.decision.world import World


def islands(size: int) -> tuple[Device, ...]:
    return tuple(Device(index, "h200", island=index // size) for index in range(8))


def test_job_goes_to_a_node_with_its_labels(world: World) -> None:
    world.node("a", labels={"disk": "slow"})
    world.node("b", labels={"disk": "fast", "zone": "1"})
    world.expect(world.job(where=Where(labels=(("disk", "fast"),))), on="b")


def test_label_that_no_node_carries_can_never_start(world: World) -> None:
    world.node("a")
    world.expect_waiting(world.job(where=Where(labels=(("disk", "fast"),))), ReasonCode.EXCEEDS_MAXIMUM)


def test_tainted_node_takes_only_jobs_that_tolerate_all_of_it(world: World) -> None:
    world.node("a", taints=("spot", "old"))
    world.node("b", gpus=1)
    some, all_of_it = Where(tolerates=("spot",)), Where(tolerates=("old", "spot"))
    assert [world.check().starts for _ in [world.job(gpus=2, where=some)]] == [()]
    world.expect(world.job(gpus=2, where=all_of_it), on="a")


def test_denied_site_is_never_used(world: World) -> None:
    world.node("a", site="hue")
    world.node("b", site="hanoi")
    world.expect(world.job(where=Where(denied_sites=("hue",))), on="b")


def test_preferred_site_is_tried_first_and_no_condition(world: World) -> None:
    world.node("a", site="hue")
    world.node("b", site="hanoi", gpus=2)
    where = Where(preferred_sites=("hanoi", "hue"))
    first, second = world.job(gpus=2, where=where), world.job(gpus=4, where=where)
    assert [(start.job, start.nodes) for start in world.check().starts] == [(first, ("b",)), (second, ("a",))]


def racks(world: World) -> None:
    for name, rack in (("a", "r1"), ("b", "r1"), ("c", "r2")):
        world.node(name, gpus=4, rack=rack)


def test_gang_stays_within_its_rack(world: World) -> None:
    racks(world)
    world.policy = replace(world.policy, placement=Placement.SPREAD)
    world.runs({"a": [0]})
    # On the site as a whole, b and c are the emptiest; a and b are one rack.
    world.expect(world.job(gpus=3, replicas=2, where=Where(within=Within.RACK)), on=("b", "a"))


@pytest.mark.parametrize(
    ("within", "gpus", "replicas"),
    [
        pytest.param(Within.RACK, 4, 2, id="rack"),
        pytest.param(Within.NODE, 2, 2, id="node"),
        pytest.param(Within.ISLAND, 3, 1, id="island"),
    ],
)
def test_room_that_is_too_far_apart_is_topology(world: World, within: Within, gpus: int, replicas: int) -> None:
    for name, rack in (("a", "r1"), ("b", "r1"), ("c", "r2")):
        world.node(name, gpus=4, rack=rack, devices=tuple(Device(index, "h200", island=index // 3) for index in range(4)))
    world.runs({"a": [0, 3]})
    if within is not Within.RACK:
        for node in "bc":
            world.runs({node: [0]})
    reason = world.expect_waiting(world.job(gpus=gpus, replicas=replicas, where=Where(within=within)), ReasonCode.TOPOLOGY)
    assert reason.data["within"] == within.value


@pytest.mark.parametrize(
    ("within", "gpus", "replicas"),
    [
        pytest.param(Within.RACK, 4, 3, id="rack"),
        pytest.param(Within.NODE, 4, 2, id="node"),
        pytest.param(Within.ISLAND, 3, 1, id="island"),
    ],
)
def test_gang_larger_than_any_such_group_can_never_start(world: World, within: Within, gpus: int, replicas: int) -> None:
    for name, rack in (("a", "r1"), ("b", "r1"), ("c", "r2")):
        world.node(name, gpus=4, rack=rack, devices=tuple(Device(index, "h200", island=index // 2) for index in range(4)))
    world.expect_waiting(world.job(gpus=gpus, replicas=replicas, where=Where(within=within)), ReasonCode.EXCEEDS_MAXIMUM)


def test_devices_come_from_the_fullest_island_that_has_enough(world: World) -> None:
    world.node("a", devices=islands(4))
    world.runs({"a": [0, 1, 4]})
    (start,) = [world.check().starts[0] for _ in [world.job(gpus=3)]]
    assert [piece.device_index for piece in start.slices] == [5, 6, 7]


def test_node_with_a_whole_island_is_better_than_a_fuller_one_without(world: World) -> None:
    world.node("a", devices=islands(4))
    world.node("b", devices=islands(4))
    world.runs({"a": [0, 4, 1]})
    world.runs({"b": [0, 1, 2, 3]})
    world.expect(world.job(gpus=4), on="b")


def test_job_that_fits_no_island_spans_them(world: World) -> None:
    world.node("a", devices=islands(4))
    world.runs({"a": [0, 4]})
    (start,) = [world.check().starts[0] for _ in [world.job(gpus=5)]]
    assert [piece.device_index for piece in start.slices] == [1, 2, 3, 5, 6]
