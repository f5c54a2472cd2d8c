"""What holds for every plan: the invariants of `world.verify`, on generated worlds."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from quotas.amount import Amount
from scheduler.decision.decide import decide
from scheduler.decision.fit import Fleet
from scheduler.decision.forecast import forecast
from scheduler.decision.snapshot import Placement, Policy
from tests.decision.world import HOUR_MS, World

sizes = st.integers(1, 5)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to five nodes, three tenants in a cohort and twelve jobs; some devices are held. Names come from counters."""
    policy = Policy(
        fair_sharing=draw(st.booleans()),
        fair_share_half_life_ms=0,
        backfill_depth=draw(st.integers(0, 3)),
        placement=draw(st.sampled_from(Placement)),
        spans_nodes=draw(st.booleans()),
    )
    world = World(policy=policy)
    world.cohort("all", gpus=draw(st.integers(0, 8)))
    tenants = [
        world.tenant(f"t{at}", draw(st.integers(0, 8)), parent="all", borrow=draw(st.none() | sizes), weight=draw(st.integers(0, 3)))
        for at in range(3)
    ]
    for at in range(draw(sizes)):
        node = world.node(
            f"n{at}", gpus=draw(st.integers(1, 8)), site=draw(st.sampled_from(["hanoi", "hue"])), rack=draw(st.sampled_from(["", "r1"]))
        )
        if draw(st.booleans()):
            world.runs({node: [0]}, tenant=draw(st.sampled_from(tenants)), limit_ms=draw(sizes) * HOUR_MS, cpus=draw(sizes))
    for _ in range(draw(st.integers(1, 12))):
        world.job(
            gpus=draw(st.integers(0, 4)),
            cpus=draw(st.sampled_from([1, 60])),
            replicas=draw(st.integers(1, 3)),
            tenant=draw(st.sampled_from(tenants)),
            priority=draw(st.integers(0, 2)),
            limit_ms=draw(sizes) * HOUR_MS,
        )
    return world


@settings(deadline=None, max_examples=200)
@given(worlds())
def test_every_plan_keeps_the_invariants(world: World) -> None:
    world.check()


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_deciding_changes_nothing_in_the_snapshot(world: World) -> None:
    snapshot = world.snapshot()
    decide(snapshot)
    forecast(snapshot, 10)
    assert decide(snapshot) == decide(world.snapshot())


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_nothing_more_starts_once_a_plan_is_applied(world: World) -> None:
    """With the starts charged and only the waiting jobs left, a second decision finds nothing that the first one missed."""
    world.policy = replace(world.policy, backfill_depth=0)
    snapshot = world.snapshot()
    plan = decide(snapshot)
    keys = {job.job: item.key for item in snapshot.classes for job in item.jobs}
    fleet, tree = snapshot.fleet.copy(), snapshot.tree.copy()
    for start in plan.starts:
        fleet.hold(keys[start.job].shape, start.slices, start.nodes)
        tree.add(keys[start.job].tenant, _usage(keys[start.job].shape.milli_gpu))
    started = {start.job for start in plan.starts}
    left = [replace(item, jobs=rest) for item in snapshot.classes if (rest := [job for job in item.jobs if job.job not in started])]
    assert decide(replace(snapshot, fleet=fleet, tree=tree, classes=left)).starts == ()


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_index_of_free_devices_agrees_with_counting(world: World) -> None:
    snapshot = world.snapshot()
    fleet = snapshot.fleet.copy()
    for job in snapshot.running:
        fleet.release(job.shape, job.slices, job.nodes)
    empty = Fleet(snapshot.nodes)
    assert (fleet.buckets, fleet.free_total, fleet.free_devices) == (empty.buckets, empty.free_total, empty.free_devices)
    assert (fleet.free_cpu_milli, fleet.free_memory_bytes) == (empty.free_cpu_milli, empty.free_memory_bytes)


def _usage(milli_gpu: int) -> dict[str, Amount]:
    return {"h200": Amount(milli_gpu)}
