"""The quota tree as operators look at it: in order, with what is held counted once, rules, shares, and only what is in force."""

from __future__ import annotations

import pytest

from scheduler.decision.snapshot import Policy
from store import cohorts, quota_rules
from store.errors import NotFoundError
from store.quota_nodes import NodeView, QuotaNodeByName, QuotaTree, ResourceView
from tests.store.world import T0_MS, World


@pytest.fixture
def two(world: World) -> World:
    """Cohort `research` below `fleet`; acme in it owns 2 and holds 4, globex beside it owns 6; `alone` stands in no cohort."""
    world.run(cohorts.CreateCohort("research", "fleet", 1_000, T0_MS))
    world.tenant("globex", gpus=6, parent="fleet")
    world.tenant("acme", gpus=2, parent="research")
    world.tenant("alone", gpus=1)
    world.node("a")
    world.lease(world.job(gpus=4), on=[("a", index) for index in range(4)])
    return world


def tree(world: World) -> dict[str, NodeView]:
    return {node.name: node for node in world.read(QuotaTree(world.now_ms))}


def test_parents_come_first_then_cohorts_then_names(two: World) -> None:
    assert [(node.name, node.kind, node.depth) for node in tree(two).values()] == [
        ("fleet", "cohort", 0),
        ("research", "cohort", 1),
        ("acme", "tenant", 2),
        ("globex", "tenant", 1),
        ("alone", "tenant", 0),
    ]


def test_what_is_held_is_borrowed_and_shared_at_each_level(two: World) -> None:
    seen = tree(two)
    assert seen["acme"].resources == (ResourceView("h200", 2_000, None, None, 2_000, 4_000, 2_000, 4_000),)
    assert seen["fleet"].resources == (ResourceView("h200", None, None, None, 8_000, 4_000, 0, 4_000),)
    shares = {name: node.share_micro for name, node in seen.items()}
    assert shares == {"fleet": None, "research": 250_000, "acme": 250_000, "globex": 0, "alone": None}


def test_lease_of_a_project_is_counted_once(two: World) -> None:
    two.quota("acme", 1, project="default")
    seen = tree(two)
    assert (seen["default"].kind, seen["default"].resources[0].held, seen["acme"].resources[0].held) == ("project", 4_000, 4_000)
    assert two.read(QuotaNodeByName(two.now_ms, "acme", "default")) == seen["default"]


def test_cohort_has_no_rules_and_a_tenant_its_own(two: World) -> None:
    two.run(quota_rules.SetRules("acme", None, {"reclaim_within_cohort": "any", "user_cap_milli_gpu": 500}, Policy(), T0_MS))
    seen = tree(two)
    assert (seen["acme"].reclaim_within_cohort, seen["acme"].user_cap_milli_gpu, seen["acme"].within_tenant) == ("any", 500, "never")
    assert (seen["fleet"].reclaim_within_cohort, seen["fleet"].user_cap_milli_gpu, seen["fleet"].when_can_borrow) == (None, None, None)


def test_quota_that_was_cut_below_what_is_held_leaves_less_than_nothing(two: World) -> None:
    two.quota("acme", 1, borrowing_limit=500)
    (found,) = two.read(QuotaNodeByName(two.now_ms, "acme")).resources
    assert (found.nominal, found.held, found.available) == (1_000, 4_000, -2_500)


@pytest.mark.parametrize(
    ("tenant", "project", "cohort", "code"),
    [
        pytest.param("no", None, None, "tenant_not_found", id="tenant"),
        pytest.param("acme", "default", None, "project_not_found", id="project without a quota"),
        pytest.param(None, None, "acme", "cohort_not_found", id="a tenant is no cohort"),
    ],
)
def test_what_is_not_in_the_tree_is_missing(two: World, tenant: str | None, project: str | None, cohort: str | None, code: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        two.read(QuotaNodeByName(two.now_ms, tenant, project, cohort))
    assert refused.value.code == code
