"""Quota rows: dated and never edited, the newest that covers the moment wins, and what is held and queued against them."""

from __future__ import annotations

from typing import Any

import pytest

from store import quotas
from store.errors import InvalidError, NotFoundError
from tests.store.world import T0_MS, World
from tests.support.statements import change, rows


def in_force(world: World, at_ms: int = T0_MS, tenant: str | None = None) -> list[tuple[str, str | None, str, int]]:
    found = world.read(quotas.QuotasInForce(at_ms, tenant))
    return [(view.tenant, view.project, view.resource, view.nominal) for view in found]


def test_newest_start_wins_and_old_rows_stay(world: World) -> None:
    world.tenant("acme", gpus=8)
    world.quota("acme", 2, valid_from_ms=T0_MS + 10, valid_until_ms=T0_MS + 20)
    found = [in_force(world, T0_MS + at)[0][3] for at in (0, 9, 10, 19, 20)]
    assert found == [8_000, 8_000, 2_000, 2_000, 8_000]
    assert rows(world.store, "SELECT count(*) FROM quota") == [(2,)]


def test_later_row_of_the_same_start_wins(world: World) -> None:
    world.tenant("acme", gpus=8)
    world.quota("acme", 3)
    assert in_force(world) == [("acme", None, "h200", 3_000)]


def test_quotas_of_tenants_and_projects_stand_side_by_side(world: World) -> None:
    world.tenant("acme", gpus=8, parent="fleet")
    world.tenant("other", gpus=1)
    world.quota("acme", 4, project="default")
    world.quota("acme", 0, resource="cpu", nominal=64_000, borrowing_limit=1_000)
    everything = [("acme", None, "cpu", 64_000), ("acme", None, "h200", 8_000), ("acme", "default", "h200", 4_000)]
    assert in_force(world) == [*everything, ("other", None, "h200", 1_000)]
    assert in_force(world, tenant="ten_acme") == everything


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        pytest.param({"resource": "h999"}, "unknown_resource", "resource", id="unknown model"),
        pytest.param({"valid_until_ms": T0_MS}, "empty_window", "valid_until", id="empty window"),
        pytest.param({"borrowing_limit": 1}, "nobody_to_borrow_from", "borrowing_limit", id="nobody to borrow from"),
    ],
)
def test_row_that_makes_no_sense_is_refused(world: World, fields: dict[str, Any], code: str, field: str) -> None:
    world.tenant("acme", gpus=None)
    with pytest.raises(InvalidError) as refused:
        world.quota("acme", 1, **fields)
    assert (refused.value.code, refused.value.data["field"]) == (code, field)
    assert in_force(world) == []


@pytest.mark.parametrize(("tenant", "project", "field"), [("nobody", None, "tenant"), ("acme", "nothing", "project")])
def test_quota_of_what_is_not_there_is_refused(world: World, tenant: str, project: str | None, field: str) -> None:
    world.tenant("acme", gpus=None)
    with pytest.raises(NotFoundError) as refused:
        world.quota(tenant, 1, project=project)
    assert refused.value.data["field"] == field


def test_held_and_queued_are_counted_for_tenant_and_project_in_each_resource(world: World) -> None:
    world.tenant("acme", gpus=8)
    world.tenant("other", gpus=8)
    world.node("a")
    for resource in ("cpu", "memory"):
        world.quota("acme", 0, resource=resource, nominal=1)
    world.quota("acme", 8, project="default")
    world.lease(world.job(gpus=2), on=[("a", 0), ("a", 1)])
    change(world.store, "UPDATE lease_node SET cpu_milli = 3000, memory_bytes = 5")
    world.job(gpus=3, replicas=2)
    world.job(tenant="other", gpus=1)
    amounts = {(view.tenant, view.project, view.resource): (view.held, view.queued) for view in world.read(quotas.QuotasInForce(T0_MS))}
    assert amounts == {
        ("acme", None, "cpu"): (3_000, 0),
        ("acme", None, "h200"): (2_000, 6_000),
        ("acme", None, "memory"): (5, 0),
        ("acme", "default", "h200"): (2_000, 6_000),
        ("other", None, "h200"): (0, 1_000),
    }


def test_sums_do_not_overflow_whatever_is_queued(world: World) -> None:
    world.tenant("acme", gpus=None)
    world.quota("acme", 0, resource="memory", nominal=1)
    most = 1 << 53
    shape = f'{{"cpu_milli_per_replica":0,"flavors":[],"memory_bytes_per_replica":{most},"milli_gpu_per_slice":1000,"replicas":1000,'
    world.run(world.submission(count=3, gpus=0))
    change(world.store, "UPDATE job_class SET shape = :shape", shape=shape + '"sites":[],"slices_per_replica":0}')
    assert [view.queued for view in world.read(quotas.QuotasInForce(T0_MS))] == [3 * 1_000 * most]


def test_cut_below_what_is_held_is_legal_and_warns(world: World) -> None:
    world.tenant("acme", gpus=8)
    world.node("a")
    world.lease(world.job(gpus=2), on=[("a", 0), ("a", 1)])
    view = world.quota("acme", 1)
    assert (view.held, view.warnings) == (2_000, ("2000 is held now, more than the new nominal 1000; nothing is stopped by that",))


def test_more_nominal_quota_than_there_is_warns(world: World) -> None:
    world.tenant("acme", gpus=8)
    world.node("a", gpus=8)
    world.tenant("other", gpus=None)
    assert world.quota("other", 1).warnings == ("nominal quotas of h200 add up to 9000 milli-GPU, the fleet has 8000",)
