"""Rows -> the scheduler's snapshot: complete, in a stated order, and the same from both kinds of database."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from domain.jobs import Shape
from domain.slices import DeviceHealth, DeviceMode, Slice
from scheduler.decision.decide import decide
from scheduler.decision.snapshot import ClassKey, Policy
from store import fleet, identity, jobs
from store.engine import Store
from store.scheduling import Loaded, LoadSnapshot
from tests.store.world import GIB, HOUR_MS, T0_MS, World
from tests.support.statements import change


def load(world: World) -> Loaded:
    loaded: Loaded = world.read(LoadSnapshot(world.now_ms, Policy()))
    return loaded


@pytest.fixture
def acme(world: World) -> World:
    """A tenant and a node."""
    world.tenant("acme")
    world.node("a")
    return world


def test_node_is_described_as_its_rows_say(acme: World) -> None:
    change(acme.store, "UPDATE device SET health = 'faulty', mode = 'mig' WHERE id = 'GPU-a-1'")
    loaded = load(acme)
    (node,) = loaded.snapshot.nodes
    assert (node.name, node.site, node.gpu_model, node.cpu_milli, node.memory_bytes) == ("a", "hanoi", "h200", 64_000, 512 * GIB)
    assert [(item.index, item.health, item.mode) for item in node.devices][:2] == [
        (0, DeviceHealth.HEALTHY, DeviceMode.WHOLE),
        (1, DeviceHealth.FAULTY, DeviceMode.MIG),
    ]
    assert (loaded.node_ids["a"], loaded.device_ids["a", 1]) == ("nod_a", "GPU-a-1")


@pytest.mark.parametrize("switch", ["is_cordoned", "is_draining", "is_lost"])
def test_node_that_takes_nothing_new_is_there_and_not_schedulable(acme: World, switch: str) -> None:
    change(acme.store, f"UPDATE node SET {switch} = {'1' if acme.store.is_sqlite else 'true'}")  # noqa: S608  a name of this file
    assert [node.is_schedulable for node in load(acme).snapshot.nodes] == [False]


def test_node_without_an_inventory_is_not_there(acme: World) -> None:
    acme.run(fleet.CreateNode("nod_b", "b", "hanoi", None, T0_MS))
    assert [node.name for node in load(acme).snapshot.nodes] == ["a"]


def test_queue_is_grouped_by_class_in_order_of_arrival(acme: World) -> None:
    first, second, third = acme.job(), acme.job(gpus=2), acme.job()
    acme.run(jobs.CancelJob(acme.job(), None, "usr_acme", T0_MS))
    loaded = load(acme)
    key = ClassKey("ten_acme", Shape(("h200",), 1, 1), HOUR_MS, 0, "prj_acme", tier="standard")
    assert [[pending.job for pending in item.jobs] for item in loaded.snapshot.classes] == [[first, third], [second]]
    assert loaded.snapshot.classes[0].key == key
    assert [(pending.seq, pending.attempt, pending.submitted_ms) for pending in loaded.snapshot.classes[0].jobs] == [
        (1, 1, T0_MS),
        (3, 1, T0_MS),
    ]
    assert set(loaded.answers) == set(loaded.class_ids.values())


def test_open_lease_runs_with_its_slices_and_a_released_one_does_not(acme: World) -> None:
    done, job = acme.job(), acme.job(gpus=2)
    acme.run_to_the_end(acme.lease(done, on=[("a", 0)]))
    lease = acme.lease(job, on=[("a", 3), ("a", 5)])
    (running,) = load(acme).snapshot.running
    assert (running.job, running.attempt, running.lease_id, running.tenant, running.flavor) == (job, 1, lease, "ten_acme", "h200")
    assert running.slices == (Slice(0, "a", 3, 1_000), Slice(0, "a", 5, 1_000))
    assert (running.started_ms, running.limit_ms, running.nodes) == (acme.now_ms, HOUR_MS + 10_000, ("a",))


def test_lease_that_has_ended_still_holds_what_is_not_proven_free(acme: World) -> None:
    lease = acme.lease(acme.job(), on=[("a", 0)])
    change(acme.store, "UPDATE lease SET ended_at_ms = granted_at_ms")
    assert [running.lease_id for running in load(acme).snapshot.running] == [lease]


def test_usage_of_running_leases_is_charged_to_the_tree(acme: World) -> None:
    acme.lease(acme.job(gpus=2), on=[("a", 0), ("a", 1)])
    assert load(acme).snapshot.tree.available("ten_acme", "h200") == 6_000


def test_project_with_quota_of_its_own_is_charged_itself(acme: World) -> None:
    acme.quota("acme", 3, project="default")
    acme.lease(acme.job(gpus=2), on=[("a", 0), ("a", 1)])
    acme.job()
    loaded = load(acme)
    assert [item.tenant for item in loaded.snapshot.running] == ["prj_acme"]
    assert [item.key.tenant for item in loaded.snapshot.classes] == ["prj_acme"]
    assert loaded.snapshot.tree.usage("prj_acme", "h200") == 2_000


def test_quota_of_one_project_leaves_the_others_their_tenants(acme: World) -> None:
    acme.run(identity.CreateProject("prj_vision", "acme", "vision", T0_MS))
    acme.quota("acme", 1, project="vision")
    job = acme.job()
    snapshot = load(acme).snapshot
    assert [start.job for start in decide(snapshot).starts] == [job]
    assert [item.key.tenant for item in snapshot.classes] == ["prj_acme"]


@pytest.mark.parametrize(("at", "expected"), [(9, 8_000), (10, 1_000), (20, 8_000)], ids=["before", "inside", "after"])
def test_quota_is_the_one_in_force_at_the_moment(acme: World, at: int, expected: int) -> None:
    acme.quota("acme", 1, valid_from_ms=T0_MS + 10, valid_until_ms=T0_MS + 20)
    acme.now_ms = T0_MS + at
    assert load(acme).snapshot.tree.available("ten_acme", "h200") == expected


@pytest.mark.postgres
def test_both_kinds_of_database_give_the_same_plan_from_the_same_rows(sqlite_url: str, postgres_url: str) -> None:
    plans = []
    with ExitStack() as stack:
        for url in (sqlite_url, postgres_url):
            store = Store.open(url)
            stack.callback(store.close)
            world = World(store)
            world.tenant("acme", gpus=6, parent="fleet")
            world.tenant("b-10", gpus=2, parent="fleet")
            for name in ("gpu-2", "gpu-10", "GPU_1", "gpu1"):  # a locale would put these in another order
                world.node(name, gpus=2)
            world.lease(world.job(gpus=2), on=[("gpu-2", 0), ("gpu-2", 1)])
            for gpus in (1, 2, 2, 1, 1):
                world.job(gpus=gpus)
                world.job(tenant="b-10", gpus=gpus)
            loaded = load(world)
            plans.append((decide(loaded.snapshot), list(loaded.node_ids), list(loaded.class_ids)))
    assert plans[0] == plans[1]
    assert plans[0][0].starts
