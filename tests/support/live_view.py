"""The live view of a scheduler against one made from rows: they must be the same, and so must what is decided on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scheduler.decision.decide import decide
from scheduler.decision.fit import Fleet
from scheduler.decision.snapshot import Snapshot
from scheduler.service import Loop
from store.engine import Store
from store.scheduling import Loaded, LoadSnapshot


async def check(store: Store, loop: Loop) -> None:
    """Let the view catch up and assert that it equals the rows. What fair sharing remembers lives between the rows and is left out."""
    if loop.keeper.index is None:
        return
    now_ms = loop.lead.stamp()
    live = (await loop.keeper.catch_up(now_ms)).loaded(now_ms, is_frozen=True)
    from_rows: Loaded = await store.read(LoadSnapshot(now_ms, loop.settings.policy))
    expected = parts(from_rows)
    differing = {name: (part, expected[name]) for name, part in parts(live).items() if part != expected[name]}
    assert not differing, f"the view and the rows (in this order) differ at {now_ms}: {differing}"
    past = live.snapshot.past
    assert decide(live.snapshot) == decide(replace(from_rows.snapshot, past=past)), f"decided otherwise at {now_ms}"


def parts(loaded: Loaded) -> dict[str, Any]:
    """Return everything of a snapshot that can be compared."""
    snapshot = loaded.snapshot
    return {
        "policy": snapshot.policy,
        "nodes": list(snapshot.nodes),
        "flavors": dict(snapshot.flavors),
        "usage": usage(snapshot),
        "free": free(snapshot.fleet),
        "running": list(snapshot.running),
        "classes": {item.key: list(item.jobs) for item in snapshot.classes},
        "order": [item.key for item in snapshot.classes],
        "reservations": list(snapshot.capacity_reservations),
        "maintenance": list(snapshot.maintenance_windows),
        "nominations": list(snapshot.nominations),
        "preemptions": {pool: list(times) for pool, times in snapshot.recent_preemptions.items()},
        "class_ids": dict(loaded.class_ids),
        "held": list(loaded.held),
        "answers": {class_id: loaded.answers[class_id] for class_id in loaded.class_ids.values()},
    }


def usage(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    """Return what every quota node uses of every resource."""
    tree = snapshot.tree
    return {(node.name, resource): tree.usage(node.name, resource) for node in tree.nodes() for resource in tree.resources}


def free(fleet: Fleet) -> tuple[list[int], list[int], list[int]]:
    """Return free devices, CPU and memory by node."""
    return list(fleet.free_devices), list(fleet.free_cpu_milli), list(fleet.free_memory_bytes)
