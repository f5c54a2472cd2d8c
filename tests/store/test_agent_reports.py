"""What agents send is kept once, however often it is sent, and a node speaks for its own leases only."""

from __future__ import annotations

import pytest

from store.agent_reports import NOTHING_ACCEPTED, Output, Seen
from store.errors import NotFoundError
from store.fleet import NodeByName
from store.observations import OpenObservations, SetAside, SilentNodes
from store.observations import Seen as Waiting
from tests.store.world import T0_MS, World
from tests.support.statements import rows

OUTPUT = "SELECT attempt, start_offset, data FROM log_chunk ORDER BY start_offset"


@pytest.fixture
def acme(world: World) -> World:
    """A tenant, two nodes, and lease `lea_a` on node `a`."""
    world.tenant("acme")
    world.node("a")
    world.node("b")
    world.bind(world.start(world.job(), on=[("a", 0)], lease="lea_a"))
    return world


def seen(number: int, kind: str = "progress", *, lease: str | None = "lea_a", **data: object) -> Seen:
    return Seen(number, kind, lease, T0_MS + number, data)


def waiting(world: World) -> list[tuple[str, str | None, dict[str, object]]]:
    return [(item.kind, item.lease_id, dict(item.data)) for item in world.read(OpenObservations())]


def test_batch_is_kept_in_order_and_its_last_number_may_be_forgotten(acme: World) -> None:
    assert acme.report("a", seen=[seen(1, "started"), seen(2, "progress", step=5)], outputs=[Output(3, "lea_a", 0, b"hello")]) == 3
    assert waiting(acme) == [("started", "lea_a", {}), ("progress", "lea_a", {"step": 5})]
    assert [(row[0], row[1], bytes(row[2])) for row in rows(acme.store, OUTPUT)] == [(1, 0, b"hello")]


def test_batch_that_is_sent_twice_counts_once(acme: World) -> None:
    for _ in range(2):
        assert acme.report("a", seen=[seen(1), seen(2)], outputs=[Output(3, "lea_a", 0, b"x")]) == 3
    assert len(waiting(acme)) == 2
    assert len(rows(acme.store, OUTPUT)) == 1


def test_batch_that_overlaps_an_earlier_one_adds_what_is_new(acme: World) -> None:
    acme.report("a", seen=[seen(1, "started"), seen(2)])
    assert acme.report("a", seen=[seen(2, "exited"), seen(3, "gone")]) == 3
    assert [kind for kind, _, _ in waiting(acme)] == ["started", "progress", "gone"]


def test_numbers_begin_anew_with_each_boot(acme: World) -> None:
    for boot in ("boot-1", "boot-2"):
        acme.report("a", seen=[seen(1)], boot=boot)
    assert len(waiting(acme)) == 2


@pytest.mark.parametrize("lease", ["lea_a", "lea_none"], ids=["another node's lease", "no lease at all"])
def test_node_speaks_for_its_own_leases_only(acme: World, lease: str) -> None:
    assert acme.report("b", seen=[seen(1, "exited", lease=lease)], outputs=[Output(2, lease, 0, b"x")]) == 2
    assert waiting(acme) == []
    assert rows(acme.store, OUTPUT) == []


def test_empty_batch_is_a_heartbeat(acme: World) -> None:
    acme.now_ms += 77
    assert acme.report("a") == NOTHING_ACCEPTED
    assert acme.read(NodeByName("a")).heartbeat_at_ms == T0_MS + 77
    assert acme.read(NodeByName("b")).heartbeat_at_ms == T0_MS


def test_node_that_nobody_made_is_refused(acme: World) -> None:
    with pytest.raises(NotFoundError, match="there is no node 'x'"):
        acme.report("x", seen=[seen(1)])


def test_observation_is_set_aside_once(acme: World) -> None:
    acme.report("a", seen=[seen(1, "odd"), seen(2)])
    first, second = acme.read(OpenObservations())
    acme.run(SetAside(acme.fence, [first], T0_MS))
    assert acme.read(OpenObservations()) == (second,)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param({"health": "faulty", "detail": "XID 79"}, ("faulty", "XID 79"), id="as it was told"),
        pytest.param({"health": "odd"}, ("unknown", None), id="a word that nobody knows"),
        pytest.param({"health": 7, "detail": 7}, ("unknown", None), id="no words at all"),
        pytest.param({"health": "faulty", "detail": "a\x00b" + "c" * 500}, ("faulty", "ab" + "c" * 197), id="what no column can keep"),
    ],
)
def test_health_of_a_device_is_kept(acme: World, told: dict[str, object], expected: tuple[str, str | None]) -> None:
    item = Waiting(1, "nod_a", "device_health", None, T0_MS, {"device_uuid": "GPU-a-3", **told})
    acme.run(SetAside(acme.fence, [item], T0_MS))
    found = rows(acme.store, "SELECT id, health, health_detail FROM device WHERE health <> 'healthy'")
    assert found == [("GPU-a-3", *expected)]


def test_node_does_not_speak_of_another_nodes_devices(acme: World) -> None:
    item = Waiting(1, "nod_b", "device_health", None, T0_MS, {"device_uuid": "GPU-a-3", "health": "faulty"})
    acme.run(SetAside(acme.fence, [item], T0_MS))
    assert rows(acme.store, "SELECT id FROM device WHERE health <> 'healthy'") == []


def test_silent_node_is_lost_and_comes_back_with_its_heartbeat(acme: World) -> None:
    acme.now_ms += 30_000
    acme.report("b")
    assert acme.run(SilentNodes(acme.fence, acme.now_ms + 1, 30_000)) == ("nod_a",)
    assert acme.run(SilentNodes(acme.fence, acme.now_ms + 1, 30_000)) == ()
    assert [acme.read(NodeByName(name)).state for name in ("a", "b")] == ["lost", "ready"]
    acme.report("a")
    assert acme.run(SilentNodes(acme.fence, acme.now_ms + 1, 30_000)) == ()
    assert acme.read(NodeByName("a")).state == "ready"
