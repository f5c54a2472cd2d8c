"""Nodes, devices, flavors and prices: what an operator makes, what an agent says it has, and what becomes of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from store import fleet
from store.errors import ConflictError, InvalidError, NotFoundError
from store.observations import Seen, SetAside
from tests.store.world import T0_MS, World, device
from tests.support.statements import change, rows

DEVICES = "SELECT id, node_id, device_index, health, health_detail FROM device ORDER BY id"


def report(world: World, node: str, devices: list[fleet.ReportedDevice]) -> fleet.NodeView:
    view: fleet.NodeView = world.run(fleet.AcceptInventory(node, "boot-2", "1.1", 32_000, 1 << 40, "none", devices, world.now_ms))
    return view


def test_new_node_takes_nothing_before_its_first_inventory(world: World) -> None:
    view = world.run(fleet.CreateNode("nod_a", "a", "hanoi", "r1", T0_MS))
    assert (view.state, view.site, view.rack, view.devices) == ("lost", "hanoi", "r1", ())
    assert world.inventory("a").state == "ready"


def test_inventory_says_what_the_node_has_and_brings_unknown_models(world: World) -> None:
    world.node("a", gpus=1)
    strange = replace(device("a", 0), gpu_model="b300", is_simulated=True)
    view = report(world, "a", [strange])
    expected = fleet.DeviceView("GPU-a-0", "a", 0, "b300", 141 << 30, "whole", "healthy", None, is_simulated=True, lease_id=None)
    assert view.devices == (expected,)
    assert (view.gpu_model, view.cpu_milli, view.isolation, view.agent_version, view.is_simulated) == ("b300", 32_000, "none", "1.1", True)
    flavors = {item.name: item.milli_gpu for item in world.read(fleet.Flavors("USD", T0_MS))}
    assert flavors["b300"] == 1_000


def test_inventory_that_is_sent_again_changes_nothing(world: World) -> None:
    first = world.node("a", is_simulated=True)
    assert world.inventory("a", is_simulated=True) == first
    assert first.is_simulated


def test_leased_devices_show_their_lease(world: World) -> None:
    world.tenant("acme")
    world.node("a", gpus=2)
    lease = world.lease(world.job(), on=[("a", 1)])
    view = world.read(fleet.NodeByName("a"))
    assert [item.lease_id for item in view.devices] == [None, lease]
    assert (view.milli_gpu_total, view.milli_gpu_leased) == (2_000, 1_000)


def test_device_that_is_gone_stays_as_a_faulty_row_and_comes_back_healthy(world: World) -> None:
    world.node("a", gpus=2)
    report(world, "a", [device("a", 0)])
    assert rows(world.store, DEVICES)[1] == ("GPU-a-1", "nod_a", 1, "faulty", "missing")
    world.inventory("a", gpus=2)
    assert rows(world.store, DEVICES)[1] == ("GPU-a-1", "nod_a", 1, "healthy", None)


def test_device_that_was_found_faulty_does_not_become_healthy_by_a_restart(world: World) -> None:
    world.node("a", gpus=1)
    world.run(
        SetAside(world.fence, [Seen(1, "nod_a", "device_health", None, T0_MS, {"device_uuid": "GPU-a-0", "health": "faulty"})], T0_MS)
    )
    assert world.inventory("a", gpus=1).devices[0].health == "faulty"


def test_device_that_falls_off_the_bus_shifts_those_behind_it(world: World) -> None:
    world.node("a", gpus=3)
    report(world, "a", [replace(device("a", 1), device_index=0), replace(device("a", 2), device_index=1)])
    assert rows(world.store, DEVICES) == [
        ("GPU-a-0", "nod_a", fleet.MISSING_INDEX_FIRST, "faulty", "missing"),
        ("GPU-a-1", "nod_a", 0, "healthy", None),
        ("GPU-a-2", "nod_a", 1, "healthy", None),
    ]
    world.inventory("a", gpus=3)
    assert [row[2:] for row in rows(world.store, DEVICES)] == [(0, "healthy", None), (1, "healthy", None), (2, "healthy", None)]


def test_device_that_was_put_into_another_node_moves_when_it_is_missing_and_free(world: World) -> None:
    world.node("a", gpus=2)
    world.node("b", gpus=0)
    moved = device("a", 1)
    with pytest.raises(ConflictError, match="belongs to another node") as refused:
        report(world, "b", [moved])
    assert refused.value.code == "device_elsewhere"
    report(world, "a", [device("a", 0)])
    assert report(world, "b", [moved]).devices[0].uuid == "GPU-a-1"
    assert rows(world.store, DEVICES)[1] == ("GPU-a-1", "nod_b", 1, "healthy", None)


def test_device_under_a_lease_does_not_move(world: World) -> None:
    world.tenant("acme")
    world.node("a", gpus=1)
    world.node("b", gpus=0)
    world.lease(world.job(), on=[("a", 0)])
    report(world, "a", [])
    with pytest.raises(ConflictError):
        report(world, "b", [device("a", 0)])
    assert rows(world.store, DEVICES) == [("GPU-a-0", "nod_a", 0, "faulty", "missing")]


def test_inventory_with_two_models_is_refused_and_changes_nothing(world: World) -> None:
    world.node("a", gpus=1)
    before = rows(world.store, DEVICES)
    with pytest.raises(InvalidError, match="a node has devices of one model") as refused:
        report(world, "a", [device("a", 0), replace(device("a", 1), gpu_model="l40s")])
    assert refused.value.data == {"field": "devices[1].gpu_model", "limit": "h200"}
    assert rows(world.store, DEVICES) == before


@pytest.mark.parametrize(
    ("second", "field"),
    [(replace(device("a", 0), device_index=1), "devices[1].uuid"), (replace(device("a", 1), device_index=0), "devices[1].device_index")],
    ids=["a device", "an index"],
)
def test_inventory_that_names_something_twice_is_refused_whole(world: World, second: fleet.ReportedDevice, field: str) -> None:
    world.run(fleet.CreateNode("nod_a", "a", "hanoi", None, T0_MS))
    with pytest.raises(InvalidError) as refused:
        report(world, "a", [device("a", 0), second])
    assert refused.value.data["field"] == field
    assert rows(world.store, DEVICES) == []
    assert world.read(fleet.NodeByName("a")).state == "lost"


@pytest.mark.parametrize(
    ("switches", "state"),
    [
        ({"is_cordoned": True}, "cordoned"),
        ({"is_draining": True}, "draining"),
        ({"is_draining": False, "is_cordoned": True}, "cordoned"),
        ({}, "ready"),
    ],
    ids=["cordon", "drain", "undrain but keep the cordon", "nothing"],
)
def test_switches_of_a_node(world: World, switches: dict[str, bool], state: str) -> None:
    world.node("a")
    assert world.run(fleet.SetNode("a", switches.get("is_cordoned"), switches.get("is_draining"), T0_MS)).state == state


def test_undraining_takes_the_cordon_away(world: World) -> None:
    world.node("a")
    world.run(fleet.SetNode("a", None, True, T0_MS))
    assert world.run(fleet.SetNode("a", None, False, T0_MS)).state == "ready"


@pytest.mark.parametrize(
    "command",
    [
        fleet.SetNode("x", True, None, T0_MS),
        fleet.SetNode("x", None, None, T0_MS),
        fleet.AcceptInventory("x", "b", "1", 1, 1, "none", [], T0_MS),
    ],
    ids=["switch", "no switch", "inventory"],
)
def test_node_that_is_not_there_is_missing(world: World, command: Any) -> None:
    with pytest.raises(NotFoundError, match="there is no node 'x'"):
        world.run(command)


def test_name_of_a_node_is_taken_once(world: World) -> None:
    world.node("a")
    with pytest.raises(ConflictError) as refused:
        world.run(fleet.CreateNode("nod_2", "a", "hue", None, T0_MS))
    assert (refused.value.code, refused.value.data) == ("node_exists", {"field": "name"})


def test_nodes_are_pages_in_order_of_name(world: World) -> None:
    for name in ("b-2", "a", "b-10"):
        world.node(name, gpus=1)
    assert [(view.name, len(view.devices)) for view in world.read(fleet.Nodes())] == [("a", 1), ("b-10", 1), ("b-2", 1)]
    assert [view.name for view in world.read(fleet.Nodes(after="a", limit=1))] == ["b-10"]


def test_price_is_the_newest_that_has_begun(world: World) -> None:
    world.run(fleet.CreatePrice("pri_1", "h200", "USD", 42, T0_MS + 10, T0_MS))
    prices = [{item.name: item.price_units_per_hour for item in world.read(fleet.Flavors("USD", T0_MS + at))}["h200"] for at in (9, 10)]
    assert prices == [3_500_000, 42]
    assert fleet.PriceView("pri_1", "h200", "USD", 42, T0_MS + 10) in world.read(fleet.Prices())


def test_price_does_not_begin_before_time_that_is_rated_already(world: World) -> None:
    world.tenant("acme")
    world.node("a", gpus=1)
    lease = world.lease(world.job(), on=[("a", 0)])
    world.run_to_the_end(lease, running_ms=1, ended_ms=10, released_ms=10)
    change(world.store, "UPDATE lease SET rated_at_ms = 1 WHERE id = :lease", lease=lease)
    with pytest.raises(InvalidError) as refused:
        world.run(fleet.CreatePrice("pri_1", "h200", "USD", 42, T0_MS + 9, T0_MS))
    assert (refused.value.code, refused.value.data) == ("price_in_the_past", {"field": "valid_from", "limit_ms": T0_MS + 10})
    assert "pri_1" not in {price.id for price in world.read(fleet.Prices())}
    world.run(fleet.CreatePrice("pri_1", "h200", "USD", 42, T0_MS + 10, T0_MS))


@pytest.mark.parametrize(
    ("price", "error", "code"),
    [
        (fleet.CreatePrice("p", "h999", "USD", 1, T0_MS, T0_MS), InvalidError, "unknown_flavor"),
        (fleet.CreatePrice("p", "h200", "USD", 1, T0_MS - 1, T0_MS), InvalidError, "price_in_the_past"),
        (fleet.CreatePrice("p", "h200", "USD", 1, T0_MS + 10, T0_MS), ConflictError, "price_exists"),
    ],
    ids=["unknown flavor", "in the past", "at a start that is taken"],
)
def test_price_that_cannot_be_is_refused(world: World, price: fleet.CreatePrice, error: type[Exception], code: str) -> None:
    world.run(fleet.CreatePrice("pri_1", "h200", "USD", 42, T0_MS + 10, T0_MS))
    with pytest.raises(error) as refused:
        world.run(price)
    assert refused.value.code == code  # type: ignore[attr-defined]
    assert change(world.store, "DELETE FROM price WHERE id = 'p'") == 0
