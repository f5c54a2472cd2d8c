"""Cohorts: the tree's inner nodes are made, moved and taken away, and no move makes a tree that the scheduler could not read."""

from __future__ import annotations

from typing import Any

import pytest

from quotas.tree import DEPTH_MAXIMUM
from scheduler.decision.snapshot import Policy
from store import cohorts, identity
from store.errors import ConflictError, InvalidError, NotFoundError, RefusalError
from store.scheduling import LoadSnapshot
from tests.store.world import T0_MS, World
from tests.support.statements import rows

PLACES = "SELECT name, kind, parent_id, weight_milli FROM quota_node ORDER BY id"


def create(world: World, name: str, parent: str | None = None) -> None:
    world.run(cohorts.CreateCohort(name, parent, 1_000, T0_MS))


def moved(name: str, parent: str | None) -> cohorts.SetCohort:
    return cohorts.SetCohort(name, True, parent, None, T0_MS)


def refused(world: World, command: Any) -> RefusalError:
    """Run a command that must be refused and change nothing."""
    before = rows(world.store, PLACES), rows(world.store, "SELECT count(*) FROM event")
    with pytest.raises(RefusalError) as error:
        world.run(command)
    assert (rows(world.store, PLACES), rows(world.store, "SELECT count(*) FROM event")) == before
    return error.value


def chain(world: World, length: int) -> list[str]:
    names = [f"c{number}" for number in range(length)]
    for above, name in zip([None, *names], names, strict=False):
        create(world, name, above)
    return names


def test_cohort_is_made_moved_weighed_and_taken_away(world: World) -> None:
    create(world, "research", "fleet")
    world.run(cohorts.SetCohort("research", True, None, 2_500, T0_MS))
    assert world.read(cohorts.Cohorts())[1] == cohorts.CohortView("coh_research", "research", None, 2_500)
    world.run(cohorts.DeleteCohort("research", T0_MS))
    assert [item.name for item in world.read(cohorts.Cohorts())] == ["fleet"]


def test_what_is_not_named_stays(world: World) -> None:
    create(world, "research", "fleet")
    world.run(cohorts.SetCohort("research", False, None, 2_000, T0_MS))
    world.run(moved("research", "fleet"))
    assert world.read(cohorts.Cohorts())[1] == cohorts.CohortView("coh_research", "research", "fleet", 2_000)


def test_moved_tenant_borrows_in_its_new_cohort(world: World) -> None:
    create(world, "research")
    world.run(identity.CreateTenant("ten_a", "prj_a", "acme", None, 1_000, T0_MS))
    world.run(identity.SetTenant("acme", None, None, T0_MS, is_moved=True, parent="research"))
    tree = world.read(LoadSnapshot(T0_MS, Policy())).snapshot.tree
    assert tree.path("ten_a") == ("ten_a", "coh_research")
    world.run(identity.SetTenant("acme", None, None, T0_MS, is_moved=True, parent=None))
    assert world.read(identity.TenantByName("acme")).parent is None


def test_ring_is_refused_with_its_names(world: World) -> None:
    chain(world, 3)
    error = refused(world, moved("c0", "c2"))
    assert isinstance(error, InvalidError)
    assert (error.code, error.data["field"]) == ("cohort_ring", "parent")
    assert "c0 > c2 > c1 > c0" in error.message
    assert refused(world, moved("c1", "c1")).code == "cohort_ring"


def test_tree_may_be_as_deep_as_the_scheduler_reads_and_no_deeper(world: World) -> None:
    names = chain(world, DEPTH_MAXIMUM - 2)
    world.run(identity.CreateTenant("ten_a", "prj_a", "acme", names[-1], 1_000, T0_MS))
    world.quota("acme", 1, project="default")
    assert len(world.read(LoadSnapshot(T0_MS, Policy())).snapshot.tree.path("prj_a")) == DEPTH_MAXIMUM
    create(world, "deeper", names[-1])
    world.tenant("other", gpus=None)
    below = [
        refused(world, identity.CreateTenant("ten_b", "prj_b", "b", "deeper", 1_000, T0_MS)),
        refused(world, identity.SetTenant("other", None, None, T0_MS, is_moved=True, parent="deeper")),
        refused(world, moved(names[0], "fleet")),
    ]
    assert [(error.code, error.data) for error in below] == [("quota_tree_too_deep", {"field": "parent", "limit": DEPTH_MAXIMUM})] * 3


def test_cohort_with_members_stays(world: World) -> None:
    create(world, "research")
    world.tenant("acme", gpus=None, parent="research")
    error = refused(world, cohorts.DeleteCohort("research", T0_MS))
    assert isinstance(error, ConflictError)
    assert (error.code, error.data, "acme" in error.message) == ("cohort_not_empty", {"members": 1}, True)


def test_cohort_that_goes_takes_its_quotas_with_it(world: World) -> None:
    create(world, "research")
    world.quota(None, 4, cohort="research")
    world.run(cohorts.DeleteCohort("research", T0_MS))
    assert rows(world.store, "SELECT count(*) FROM quota") == [(0,)]


@pytest.mark.parametrize(
    ("command", "kind", "code", "field"),
    [
        pytest.param(cohorts.CreateCohort("fleet", None, 1_000, T0_MS), ConflictError, "cohort_exists", "name", id="taken name"),
        pytest.param(cohorts.CreateCohort("x", "no", 1_000, T0_MS), InvalidError, "unknown_cohort", "parent", id="made below nothing"),
        pytest.param(moved("fleet", "no"), InvalidError, "unknown_cohort", "parent", id="moved below nothing"),
        pytest.param(moved("no", None), NotFoundError, "cohort_not_found", "cohort", id="move of nothing"),
        pytest.param(cohorts.DeleteCohort("no", T0_MS), NotFoundError, "cohort_not_found", "cohort", id="end of nothing"),
        pytest.param(
            identity.SetTenant("acme", None, None, T0_MS, is_moved=True, parent="no"), InvalidError, "unknown_cohort", "parent", id="tenant"
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(world: World, command: Any, kind: type, code: str, field: str) -> None:
    world.tenant("acme", gpus=None)
    error = refused(world, command)
    assert isinstance(error, kind)
    assert (error.code, error.data["field"]) == (code, field)


def test_who_has_a_limit_on_borrowing_keeps_somebody_to_borrow_from(world: World) -> None:
    world.tenant("acme", gpus=None, parent="fleet")
    world.quota("acme", 4, borrowing_limit=1_000)
    leaves = identity.SetTenant("acme", None, None, T0_MS, is_moved=True, parent=None)
    assert refused(world, leaves).code == "nobody_to_borrow_from"
    world.quota("acme", 4)
    assert world.run(leaves).parent is None
