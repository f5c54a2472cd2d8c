"""What operators set by the API: it is in the scheduler's next snapshot, tenants see their part of it, and refusals name their field."""

from __future__ import annotations

from typing import Any

import pytest

from api import clock
from quotas.amount import Amount
from quotas.tree import Reclaim
from scheduler.decision.snapshot import Policy, Snapshot
from store.scheduling import LoadSnapshot
from tests.support.api import Api, Caller, problem_of

SPAN = {"start": "2099-01-01T00:00:00Z", "end": "2099-01-01T02:00:00Z"}
SOON = {"start": "2020-01-01T00:00:00Z", "end": "2099-01-01T02:00:00Z"}
WEEKLY = {"every_days": 7, "until": "2099-03-01T00:00:00Z", "time_zone": "Asia/Ho_Chi_Minh"}
COURSE = {"name": "course", "tenant": "acme", "flavor": "h200", "gpus": 2}


async def snapshot(api: Api) -> Snapshot:
    loaded = await api.store.read(LoadSnapshot(clock.now_ms(), Policy(spans_nodes=False)))
    found: Snapshot = loaded.snapshot
    return found


async def kinds(caller: Caller) -> list[str]:
    return [event["kind"] for event in (await caller.fetch("/v1/events?limit=500"))["items"]]


async def test_everything_that_is_set_is_in_the_next_snapshot(api: Api) -> None:
    await api.node()
    await api.tenant("acme")
    await api.operator.create("/v1/cohorts", {"name": "research", "parent": "fleet", "weight_milli": 3_000})
    await api.operator.change("PUT", "/v1/cohorts/research/quota", {"resource": "h200", "nominal": 1_000})
    await api.operator.change("PATCH", "/v1/tenants/acme", {"parent": "research"})
    await api.operator.change("PATCH", "/v1/quotas/acme/rules", {"reclaim_within_cohort": "any", "user_cap_milli_gpu": 2_000})
    await api.operator.change("PATCH", "/v1/policy", {"backfill_depth": 9})
    await api.operator.create("/v1/reservations", COURSE | SOON)
    await api.operator.create("/v1/maintenance", {"name": "firmware", "nodes": ["node-1"]} | SOON)
    await api.operator.change("PATCH", "/v1/nodes/node-1", {"labels": {"zone": "a"}, "taints": ["big"], "rack": "r1"})

    seen = await snapshot(api)

    (acme,) = [node for node in seen.tree.nodes() if node.kind == "tenant"]
    assert seen.tree.path(acme.name) == (acme.name, "coh_research", "fleet")
    assert (acme.preemption.reclaim_within_cohort, acme.user_cap) == (Reclaim.ANY, Amount(2_000))
    assert seen.tree.node("coh_research").weight == 3
    assert seen.tree.available(acme.name, "h200") == 9_000
    assert seen.policy == Policy(spans_nodes=False, backfill_depth=9)
    assert [(item.name, item.tenant, item.milli_gpu) for item in seen.capacity_reservations] == [("course", acme.name, 2_000)]
    assert [(item.name, item.nodes) for item in seen.maintenance_windows] == [("firmware", ("node-1",))]
    assert [(dict(node.labels), node.taints, node.rack) for node in seen.nodes] == [({"zone": "a"}, ("big",), "r1")]


async def test_installations_policy_is_the_schedulers_where_nobody_chose(api: Api) -> None:
    shown = await api.operator.fetch("/v1/policy")

    expected = Policy(spans_nodes=False)
    assert {name: getattr(expected, name) for name in shown if name not in ("chosen", "set_at")} == {
        name: value for name, value in shown.items() if name not in ("chosen", "set_at")
    }
    assert (shown["chosen"], shown["set_at"]) == ([], None)


async def test_policy_field_is_given_back_its_default_by_null(api: Api) -> None:
    await api.operator.change("PATCH", "/v1/policy", {"fair_sharing": False, "preemptions_per_hour": 4})

    answer = await api.operator.change("PATCH", "/v1/policy", {"fair_sharing": None})

    assert (answer["fair_sharing"], answer["preemptions_per_hour"], answer["chosen"]) == (True, 4, ["preemptions_per_hour"])


async def test_tenant_sees_its_own_reservations_and_events_and_nothing_of_the_fleets(api: Api) -> None:
    await api.node()
    for name in ("acme", "globex"):
        await api.tenant(name, gpus=None)
        await api.operator.create("/v1/reservations", COURSE | SPAN | {"name": f"of-{name}", "tenant": name})
    await api.operator.change("PATCH", "/v1/policy", {"backfill_depth": 9})
    await api.operator.create("/v1/cohorts", {"name": "research"})
    await api.operator.create("/v1/maintenance", {"name": "firmware", "nodes": ["node-1"]} | SPAN)
    ada = await api.user("viewer")

    assert [item["name"] for item in (await ada.fetch("/v1/reservations"))["items"]] == ["of-acme"]
    assert problem_of(await ada.get("/v1/reservations/of-globex"))[:2] == (404, "reservation_not_found")
    assert await kinds(ada) == ["tenant_changed", "tenant_changed", "reservation_changed"]
    everything = await kinds(api.operator)
    assert {"policy_changed", "cohort_changed", "maintenance_changed", "node_changed"} <= set(everything)
    assert len(everything) == 3 * 2 + 4


async def test_event_says_which_operator_changed_what(api: Api) -> None:
    await api.tenant("acme", gpus=None)

    await api.operator.change("PATCH", "/v1/tenants/acme", {"weight_milli": 5_000})

    event = (await api.operator.fetch("/v1/events"))["items"][-1]
    operator_id = (await api.operator.fetch("/v1/me"))["user_id"]
    assert (event["kind"], event["tenant"], event["data"]) == (
        "tenant_changed", "acme", {"tenant": "acme", "weight_milli": 5_000, "user_id": operator_id},
    )  # fmt: skip


async def test_reservation_recurs_is_listed_and_cancelled(api: Api) -> None:
    await api.node()
    await api.tenant("acme")
    made = await api.operator.create("/v1/reservations", COURSE | SPAN | {"repeat": WEEKLY}, key="once")
    again = await api.operator.create("/v1/reservations", COURSE | SPAN | {"repeat": WEEKLY}, key="once")

    cancelled = await api.operator.change("DELETE", "/v1/reservations/course")

    assert again == made
    assert (made["milli_gpu"], made["repeat"]["every_days"], made["repeat"]["time_zone"]) == (2_000, 7, "Asia/Ho_Chi_Minh")
    assert cancelled["cancelled_at"] is not None
    assert await api.operator.change("DELETE", "/v1/reservations/course") == cancelled
    assert (await api.operator.fetch("/v1/reservations"))["items"] == []
    assert (await api.operator.fetch("/v1/reservations?past=true&tenant=acme"))["items"] == [cancelled]


async def test_reservations_over_the_fleet_are_refused_with_window_and_capacity(api: Api) -> None:
    await api.node(gpus=4)
    await api.tenant("acme")
    await api.operator.create("/v1/reservations", COURSE | SPAN)

    answer = await api.operator.post("/v1/reservations", COURSE | SPAN | {"name": "more", "gpus": 3})

    assert problem_of(answer) == (409, "over_capacity", "gpus", 4)
    assert "from 2099-01-01T00:00:00+00:00 on, more would set aside 5 of h200 together with course; the fleet has 4" in answer.text
    assert (await api.rows())["capacity_reservation"] == 1


async def test_quota_tree_shows_what_is_held_lent_and_shared(api: Api) -> None:
    await api.node()
    await api.tenant("acme", gpus=2, parent="fleet")
    await api.tenant("globex", gpus=6, parent="fleet")
    ada = await api.user("member")
    await ada.submit(gpus=4)
    await api.schedule()

    nodes = {node["name"]: node for node in (await api.operator.fetch("/v1/quota-tree"))["nodes"]}

    (acme,) = nodes["acme"]["resources"]
    assert acme == {
        "resource": "h200", "nominal": 2_000, "borrowing_limit": None, "lending_limit": None, "subtree": 2_000, "held": 4_000,
        "borrowed": 2_000, "available": 4_000,
    }  # fmt: skip
    assert (nodes["acme"]["share_micro"], nodes["globex"]["share_micro"], nodes["fleet"]["share_micro"]) == (250_000, 0, None)
    assert await api.operator.fetch("/v1/quotas/acme") == nodes["acme"]
    assert await api.operator.fetch("/v1/cohorts/fleet") == nodes["fleet"]


REFUSED: dict[str, tuple[str, str, dict[str, Any], tuple[int, str, str]]] = {
    "a ring": ("PATCH", "/v1/cohorts/fleet", {"parent": "research"}, (422, "cohort_ring", "parent")),
    "a cohort with members": ("DELETE", "/v1/cohorts/fleet", {}, (409, "cohort_not_empty", "")),
    "a parent that is not there": ("PATCH", "/v1/tenants/acme", {"parent": "no"}, (422, "unknown_cohort", "parent")),
    "a rule that is none": ("PATCH", "/v1/quotas/acme/rules", {"within_tenant": "always"}, (422, "invalid_request", "within_tenant")),
    "a cap below zero": ("PATCH", "/v1/quotas/acme/rules", {"user_cap_milli_gpu": -1}, (422, "invalid_request", "user_cap_milli_gpu")),
    "preemption while borrowing": (
        "PATCH", "/v1/quotas/acme/rules", {"borrow_within_cohort": "lower_priority"},
        (409, "borrows_with_fair_sharing", "borrow_within_cohort"),
    ),
    "a null where none may be": ("PATCH", "/v1/quotas/acme/rules", {"within_tenant": None}, (422, "invalid_request", "within_tenant")),
    "lending too much": (
        "PUT", "/v1/quotas/acme", {"resource": "h200", "nominal": 1, "lending_limit": 2}, (422, "lending_over_nominal", "lending_limit"),
    ),
    "a policy that is none": ("PATCH", "/v1/policy", {"spans_nodes": True}, (422, "invalid_request", "spans_nodes")),
    "a depth without bound": ("PATCH", "/v1/policy", {"backfill_depth": 10**7}, (422, "invalid_request", "backfill_depth")),
    "a zone that is none": (
        "POST", "/v1/reservations", COURSE | SPAN | {"repeat": WEEKLY | {"time_zone": "Asia"}},
        (422, "unknown_time_zone", "repeat.time_zone"),
    ),
    "no GPUs": ("POST", "/v1/reservations", COURSE | SPAN | {"gpus": 0}, (422, "invalid_request", "gpus")),
    "maintenance of nothing": ("POST", "/v1/maintenance", {"name": "m", "nodes": []} | SPAN, (422, "invalid_request", "nodes")),
    "a label that is none": ("PATCH", "/v1/nodes/node-1", {"labels": {"a b": "c"}}, (422, "invalid_request", "labels.a b")),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "expected"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    api: Api, method: str, path: str, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    await api.node()
    await api.tenant("acme")
    await api.operator.create("/v1/cohorts", {"name": "research", "parent": "fleet"})
    before = await api.rows()

    answer = await api.operator.send(method, path, json=body or None)

    status, code, field = expected
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not field or answer.json()["errors"][0]["field"].startswith(field)
    assert await api.rows() == before
