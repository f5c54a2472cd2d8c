"""What a submit is checked against: flavors, tiers, the largest nodes, and the most that a tenant could ever hold."""

from __future__ import annotations

from store.catalog import FlavorTerms, NodeMaxima, ReadFleetCatalog, ReadTenantCatalog
from store.seed import TIERS, Seed
from tests.store.world import GIB, HOUR_MS, T0_MS, World
from tests.support.statements import change, rows


def ceilings(world: World, tenant: str = "ten_acme", at_ms: int = T0_MS) -> dict[str, int]:
    return dict(world.read(ReadTenantCatalog(tenant, at_ms)).ceilings)


def test_empty_fleet_has_flavors_and_tiers_and_no_nodes(world: World) -> None:
    catalog = world.read(ReadFleetCatalog())
    assert catalog.flavors["h200"] == FlavorTerms("h200", "h200", "whole", 1_000)
    assert {name: tier.maximum_limit_ms for name, tier in catalog.tiers.items()} == {row["name"]: row["maximum_limit_ms"] for row in TIERS}
    assert catalog.maxima == {}


def test_largest_nodes_are_told_by_model_and_of_all(world: World) -> None:
    world.node("a", gpus=8)
    world.node("b", gpus=2)
    world.node("c", gpus=0)
    change(world.store, "UPDATE node SET cpu_milli = 99000 WHERE name = 'c'")
    found = world.read(ReadFleetCatalog()).maxima
    assert found == {"h200": NodeMaxima(8, 64_000, 512 * GIB), None: NodeMaxima(8, 99_000, 512 * GIB)}


def test_tenant_alone_can_hold_its_nominal_quota(world: World) -> None:
    world.tenant("acme", gpus=4)
    world.tenant("other", gpus=100)
    assert ceilings(world) == {"h200": 4_000}


def test_tenant_of_a_cohort_can_hold_what_the_others_lend(world: World) -> None:
    world.tenant("acme", gpus=4, parent="fleet")
    world.tenant("other", gpus=None, parent="fleet")
    world.quota("other", 10, lending_limit=3_000)
    assert ceilings(world) == {"h200": 7_000}
    world.quota("acme", 4, borrowing_limit=1_000)
    assert ceilings(world) == {"h200": 5_000}


def test_resource_that_the_tenant_was_never_given_has_no_ceiling(world: World) -> None:
    world.tenant("acme", gpus=None, parent="fleet")
    world.tenant("other", gpus=10, parent="fleet")
    assert ceilings(world) == {}


def test_quota_of_a_project_counts_for_its_tenant(world: World) -> None:
    world.tenant("acme", gpus=4)
    world.quota("acme", 2, project="default")
    world.quota("acme", 1, project="default", resource="h100", nominal=1_000)
    assert ceilings(world) == {"h200": 6_000, "h100": 1_000}


def test_ceiling_follows_the_dates_of_quotas(world: World) -> None:
    world.tenant("acme", gpus=4)
    world.quota("acme", 1, valid_from_ms=T0_MS + HOUR_MS)
    assert [ceilings(world, at_ms=T0_MS + at) for at in (0, HOUR_MS)] == [{"h200": 4_000}, {"h200": 1_000}]


def test_projects_of_a_tenant_come_with_their_identifiers(world: World) -> None:
    world.tenant("acme")
    assert world.read(ReadTenantCatalog("ten_acme", T0_MS)).projects == {"default": "prj_acme"}


def test_seeds_are_added_where_they_are_missing_and_change_nothing(world: World) -> None:
    change(world.store, "UPDATE tier SET grace_ms = 7 WHERE name = 'short'")
    before = [rows(world.store, f"SELECT * FROM {table} ORDER BY 1") for table in ("tier", "flavor", "price", "quota_node")]  # noqa: S608
    world.run(Seed(T0_MS + 1))
    assert [rows(world.store, f"SELECT * FROM {table} ORDER BY 1") for table in ("tier", "flavor", "price", "quota_node")] == before  # noqa: S608
