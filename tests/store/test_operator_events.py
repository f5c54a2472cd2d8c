"""Every change that operators make writes its event in the same transaction, with what changed and who did it; no change is silent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler.decision.snapshot import Policy
from store import calendar_changes, cohorts, fleet, identity, policy, quota_rules
from store.calendar_changes import Window
from tests.store.world import HOUR_MS, T0_MS, World
from tests.support.statements import rows

BASE = Policy()
BY = "usr_op"
WINDOW = Window(T0_MS + HOUR_MS, T0_MS + 2 * HOUR_MS, None)
SPAN = {"start_ms": WINDOW.start_ms, "end_ms": WINDOW.end_ms, "recurrence": None}


def events(world: World) -> list[tuple[str, str | None, str | None, dict[str, Any]]]:
    found = rows(world.store, "SELECT kind, tenant_id, node_id, data FROM event ORDER BY id")
    return [(kind, tenant_id, node_id, json.loads(data)) for kind, tenant_id, node_id, data in found]


CHANGES: dict[str, tuple[Any, tuple[str, str | None, str | None, dict[str, Any]]]] = {
    "a new cohort": (
        cohorts.CreateCohort("research", "fleet", 2_000, T0_MS, BY),
        ("cohort_changed", None, None, {"cohort": "research", "created": True, "parent": "fleet", "weight_milli": 2_000}),
    ),
    "a cohort's weight": (
        cohorts.SetCohort("fleet", False, None, 2_000, T0_MS, BY),
        ("cohort_changed", None, None, {"cohort": "fleet", "weight_milli": 2_000}),
    ),
    "a tenant's cohort": (
        identity.SetTenant("acme", None, None, T0_MS, BY, is_moved=True, parent="fleet"),
        ("tenant_changed", "ten_acme", None, {"tenant": "acme", "parent": "fleet"}),
    ),
    "a suspension": (
        identity.SetTenant("acme", None, True, T0_MS, BY),
        ("tenant_changed", "ten_acme", None, {"tenant": "acme", "is_suspended": True}),
    ),
    "a project": (
        identity.CreateProject("prj_v", "acme", "vision", T0_MS, BY),
        ("tenant_changed", "ten_acme", None, {"tenant": "acme", "project": "vision", "created": True}),
    ),
    "rules": (
        quota_rules.SetRules("acme", None, {"reclaim_within_cohort": "any", "within_tenant": "never"}, BASE, T0_MS, BY),
        ("quota_changed", "ten_acme", None, {"tenant": "acme", "reclaim_within_cohort": "any"}),
    ),
    "the policy": (
        policy.SetPolicy(BASE, {"backfill_depth": 5, "victims": "kueue"}, T0_MS, BY),
        ("policy_changed", None, None, {"backfill_depth": 5, "victims": "kueue"}),
    ),
    "a reservation": (
        calendar_changes.CreateReservation("res_1", "course", "acme", "h200", 2, WINDOW, T0_MS, BY),
        ("reservation_changed", "ten_acme", None, {"reservation": "course", "created": True, "flavor": "h200", "milli_gpu": 2_000, **SPAN}),
    ),
    "maintenance": (
        calendar_changes.CreateMaintenance("mnt_1", "firmware", ["a"], WINDOW, T0_MS, BY),
        ("maintenance_changed", None, None, {"maintenance": "firmware", "created": True, "nodes": ["a"], **SPAN}),
    ),
    "labels and taints": (
        fleet.SetNode("a", None, None, T0_MS, BY, labels={"zone": "x"}, taints=["big"]),
        ("node_changed", None, "nod_a", {"node": "a", "labels": {"zone": "x"}, "taints": ["big"]}),
    ),
    "a cordon": (fleet.SetNode("a", True, None, T0_MS, BY), ("node_changed", None, "nod_a", {"node": "a", "is_cordoned": True})),
}


@pytest.mark.parametrize(("command", "expected"), CHANGES.values(), ids=CHANGES)
def test_change_tells_of_itself_once(world: World, command: Any, expected: tuple[str, str | None, str | None, dict[str, Any]]) -> None:
    world.tenant("acme", gpus=None)
    world.node("a")
    before = len(events(world))
    world.run(command)
    kind, tenant_id, node_id, data = expected
    assert events(world)[before:] == [(kind, tenant_id, node_id, {**data, "user_id": BY})]


def test_quota_tells_of_its_row(world: World) -> None:
    world.tenant("acme", gpus=None)
    world.quota("acme", 4, project="default", user_id=BY)
    named = {"tenant": "acme", "project": "default", "resource": "h200", "user_id": BY}
    row = {"nominal": 4_000, "borrowing_limit": None, "lending_limit": None, "valid_from_ms": T0_MS, "valid_until_ms": None}
    assert events(world)[-1] == ("quota_changed", "ten_acme", None, named | row)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(cohorts.SetCohort("fleet", True, None, 1_000, T0_MS), id="cohort"),
        pytest.param(identity.SetTenant("acme", 1_000, False, T0_MS, is_moved=True, parent=None), id="tenant"),
        pytest.param(quota_rules.SetRules("acme", None, {"within_tenant": "never"}, BASE, T0_MS), id="rules"),
        pytest.param(policy.SetPolicy(BASE, {"backfill_depth": None}, T0_MS), id="policy"),
        pytest.param(fleet.SetNode("a", False, None, T0_MS, labels={"no": None}, taints=[], is_moved=True), id="node"),
    ],
)
def test_what_is_so_already_is_no_event(world: World, command: Any) -> None:
    world.tenant("acme", gpus=None)
    world.node("a")
    before = events(world)
    world.run(command)
    assert events(world) == before


def test_cancelling_twice_tells_once(world: World) -> None:
    world.tenant("acme", gpus=None)
    world.node("a")
    world.run(CHANGES["a reservation"][0])
    world.run(CHANGES["maintenance"][0])
    for _ in range(2):
        world.run(calendar_changes.CancelReservation("course", T0_MS + 1, BY))
        world.run(calendar_changes.CancelMaintenance("firmware", T0_MS + 1, BY))
    assert [(kind, data["cancelled"]) for kind, _, _, data in events(world) if "cancelled" in data] == [
        ("reservation_changed", True),
        ("maintenance_changed", True),
    ]
