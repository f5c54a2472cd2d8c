"""Rules, policy and limits of lending: what operators choose is in the next snapshot, and what excludes each other is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from quotas.tree import BorrowPreempt, Fungibility, Preemption, PreemptWithin, Reclaim, WhenCanBorrow, WhenCanPreempt
from scheduler.decision.snapshot import Placement, Policy, Snapshot, Victims
from store import cohorts, fleet, identity, policy, quota_rules
from store.errors import ConflictError, InvalidError, NotFoundError
from store.scheduling import LoadSnapshot
from tests.store.world import T0_MS, World
from tests.support.statements import rows

BASE = Policy()


def snapshot(world: World) -> Snapshot:
    found: Snapshot = world.read(LoadSnapshot(world.now_ms, BASE)).snapshot
    return found


def set_policy(world: World, **changes: Any) -> policy.PolicyView:
    view: policy.PolicyView = world.run(policy.SetPolicy(BASE, changes, T0_MS))
    return view


def set_rules(world: World, project: str | None = None, **changes: Any) -> quota_rules.RulesView:
    view: quota_rules.RulesView = world.run(quota_rules.SetRules("acme", project, changes, BASE, T0_MS))
    return view


@pytest.fixture
def acme(world: World) -> World:
    world.tenant("acme", parent="fleet")
    world.node("a")
    return world


def test_rules_are_in_the_next_snapshot(acme: World) -> None:
    set_policy(acme, fair_sharing=False)
    set_rules(
        acme, within_tenant="lower_or_newer_equal", reclaim_within_cohort="any", borrow_within_cohort="lower_priority",
        borrow_max_priority=5, when_can_borrow="try_next_flavor", when_can_preempt="preempt", user_cap_milli_gpu=3_000,
    )  # fmt: skip
    node = snapshot(acme).tree.node("ten_acme")
    assert node.preemption == Preemption(PreemptWithin.LOWER_OR_NEWER_EQUAL, Reclaim.ANY, BorrowPreempt.LOWER_PRIORITY, 5)
    assert node.fungibility == Fungibility(WhenCanBorrow.TRY_NEXT_FLAVOR, WhenCanPreempt.PREEMPT)
    assert node.user_cap == 3_000


def test_rule_that_is_not_named_stays_and_none_takes_away(acme: World) -> None:
    set_rules(acme, user_cap_milli_gpu=3_000, reclaim_within_cohort="any")
    set_rules(acme, within_tenant="lower_priority")
    assert set_rules(acme, user_cap_milli_gpu=None) == quota_rules.RulesView(
        "acme", None, "lower_priority", "any", "never", None, "borrow", "try_next_flavor", None
    )


def test_rules_of_a_project_are_its_own(acme: World) -> None:
    set_rules(acme, "default", within_tenant="lower_priority")
    found = rows(acme.store, "SELECT id, within_tenant FROM quota_node ORDER BY id")
    assert found == [("fleet", "never"), ("prj_acme", "lower_priority"), ("ten_acme", "never")]
    with pytest.raises(NotFoundError):
        set_rules(acme, "nothing", within_tenant="never")


def test_weights_suspensions_labels_taints_and_racks_are_in_the_next_snapshot(acme: World) -> None:
    job = acme.job()
    acme.run(cohorts.SetCohort("fleet", False, None, 2_500, T0_MS))
    acme.run(fleet.SetNode("a", None, None, T0_MS, labels={"zone": "x", "old": "1"}, taints=["b", "a"], is_moved=True, rack="r9"))
    acme.run(fleet.SetNode("a", None, None, T0_MS, labels={"old": None}))
    seen = snapshot(acme)
    (node,) = seen.nodes
    assert (dict(node.labels), node.taints, node.rack, seen.tree.node("fleet").weight) == ({"zone": "x"}, ("a", "b"), "r9", Fraction(5, 2))
    assert [pending.job for item in seen.classes for pending in item.jobs] == [job]
    acme.run(identity.SetTenant("acme", None, True, T0_MS))
    assert not snapshot(acme).classes


def test_node_takes_so_many_labels_and_no_more(acme: World) -> None:
    acme.run(fleet.SetNode("a", None, None, T0_MS, labels={f"k{number}": "1" for number in range(fleet.LABELS_MAXIMUM)}))
    with pytest.raises(InvalidError) as refused:
        acme.run(fleet.SetNode("a", None, None, T0_MS, labels={"more": "1"}))
    assert (refused.value.code, refused.value.data) == ("too_many_labels", {"field": "labels", "limit": fleet.LABELS_MAXIMUM})
    assert len(snapshot(acme).nodes[0].labels) == fleet.LABELS_MAXIMUM


def test_policy_is_in_the_next_snapshot_and_none_gives_a_default_back(acme: World) -> None:
    set_policy(acme, backfill_depth=7, victims="kueue", placement="spread", preemptions_per_hour=3)
    expected = replace(BASE, backfill_depth=7, victims=Victims.KUEUE, placement=Placement.SPREAD, preemptions_per_hour=3)
    assert snapshot(acme).policy == expected
    view = set_policy(acme, victims=None, preemptions_per_hour=None)
    assert snapshot(acme).policy == replace(BASE, backfill_depth=7, placement=Placement.SPREAD)
    assert view.chosen == ("backfill_depth", "placement")


def test_policy_has_no_other_fields(acme: World) -> None:
    with pytest.raises(InvalidError) as refused:
        set_policy(acme, spans_nodes=True)
    assert (refused.value.code, refused.value.data["field"]) == ("invalid_request", "spans_nodes")


def test_preemption_while_borrowing_needs_fair_sharing_off(acme: World) -> None:
    with pytest.raises(ConflictError) as refused:
        set_rules(acme, borrow_within_cohort="lower_priority", within_tenant="lower_priority")
    assert (refused.value.code, refused.value.data) == ("borrows_with_fair_sharing", {"field": "borrow_within_cohort"})
    assert rows(acme.store, "SELECT within_tenant FROM quota_node WHERE id = 'ten_acme'") == [("never",)]


def test_fair_sharing_stays_off_while_somebody_preempts_while_borrowing(acme: World) -> None:
    set_policy(acme, fair_sharing=False)
    set_rules(acme, borrow_within_cohort="lower_priority")
    with pytest.raises(ConflictError) as refused:
        set_policy(acme, fair_sharing=True, backfill_depth=3)
    assert (refused.value.code, refused.value.data) == ("borrows_with_fair_sharing", {"field": "fair_sharing", "nodes": 1})
    assert "acme" in refused.value.message
    assert snapshot(acme).policy == replace(BASE, fair_sharing=False)


def test_fair_sharing_by_default_is_refused_likewise(acme: World) -> None:
    set_policy(acme, fair_sharing=False)
    set_rules(acme, borrow_within_cohort="lower_priority")
    with pytest.raises(ConflictError):
        set_policy(acme, fair_sharing=None)


@pytest.mark.parametrize("project", [None, "default"], ids=["tenant", "project"])
def test_nobody_lends_more_than_it_owns(acme: World, project: str | None) -> None:
    with pytest.raises(InvalidError) as refused:
        acme.quota("acme", 2, project=project, lending_limit=2_001)
    assert (refused.value.code, refused.value.data) == ("lending_over_nominal", {"field": "lending_limit", "limit": 2_000})
    acme.quota("acme", 2, project=project, lending_limit=2_000)


def test_who_is_lent_by_others_below_may_lend_more_than_its_own(acme: World) -> None:
    acme.quota(None, 1, cohort="fleet", lending_limit=5_000)
    acme.quota("acme", 4, project="default")
    acme.quota("acme", 0, lending_limit=3_000)
    assert snapshot(acme).tree.subtree_quota("fleet", "h200") == 4_000


def test_quota_of_a_cohort_is_a_pool_for_all_below_it(acme: World) -> None:
    view = acme.quota(None, 6, cohort="fleet")
    assert (view.tenant, view.cohort, view.nominal) == (None, "fleet", 6_000)
    assert snapshot(acme).tree.available("ten_acme", "h200") == 14_000
    assert view.warnings == ("nominal quotas of h200 add up to 14000 milli-GPU, the fleet has 8000",)
    with pytest.raises(InvalidError) as refused:
        acme.quota(None, 6, cohort="fleet", borrowing_limit=1)
    assert refused.value.code == "nobody_to_borrow_from"
