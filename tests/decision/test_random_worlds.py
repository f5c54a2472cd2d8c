"""Ten thousand random worlds, each followed until nothing changes: the invariants, and the laws of taking.

A seed that fails is in the message; `random_world(SEED)` builds its world again.
"""

from __future__ import annotations

import pytest

from quotas.tree import Tree
from scheduler.decision.decide import decide
from scheduler.decision.plan import Plan, PreemptionCause, Start
from scheduler.decision.snapshot import Nomination, Snapshot, model_of, usage_of
from tests.decision.invariants import verify
from tests.decision.random_worlds import random_world

WORLDS = 10_000
BLOCK = 500
PASSES_MAXIMUM = 60  # far more than a dozen jobs need; a world that needs more plays ping-pong


@pytest.mark.parametrize("first_seed", range(0, WORLDS, BLOCK))
def test_every_world_comes_to_rest_and_keeps_the_laws(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + BLOCK):
        try:
            _follow_until_rest(seed)
        except (AssertionError, ValueError, KeyError) as error:
            error.add_note(f"seed {seed}")
            raise


def _follow_until_rest(seed: int) -> None:
    """Without arrivals and ends, and with victims queued again, plans have to become empty."""
    world = random_world(seed)
    world.was_checked = True
    for _ in range(PASSES_MAXIMUM):
        snapshot = world.snapshot()
        plan = decide(snapshot)
        verify(snapshot, plan)
        verify_laws(snapshot, plan)
        if not plan.starts and not plan.preemptions and plan.nominations == tuple(snapshot.nominations):
            assert decide(snapshot) == plan, "the same snapshot gave two plans"
            return
        world.follow(plan)
        world.release()
        started = {start.job for start in decide(world.snapshot()).starts}
        assert {item.job for item in plan.nominations} <= started, "somebody left for a job that then does not start"
    raise AssertionError(f"still not at rest after {PASSES_MAXIMUM} passes")


def verify_laws(snapshot: Snapshot, plan: Plan) -> None:
    """Only what is above its own quota is taken by others; own jobs only by priority or age; nobody takes by a right it does not have."""
    tree = snapshot.tree.copy()
    running = {job.job: job for job in snapshot.running}
    pending = {job.job: (item.key, job) for item in snapshot.classes for job in item.jobs}
    nominated = {item.job: item for item in plan.nominations}
    # A start of this plan can make a tenant a borrower, and only then somebody takes from it.
    begins: list[Start | Nomination] = [*plan.starts, *plan.nominations]
    for begin in begins:
        key, _ = pending[begin.job]
        tree.add(key.tenant, usage_of(key.shape, model_of(begin.flavor, snapshot.flavors)))
    for item in plan.preemptions:
        victim, (key, job) = running[item.job], pending[item.beneficiary]
        model = model_of(nominated[item.beneficiary].flavor, snapshot.flavors)
        needed = tuple(usage_of(key.shape, model))
        if item.cause is PreemptionCause.CAPACITY_RESERVATION:
            assert any(window.tenant in tree.path(key.tenant) for window in snapshot.capacity_reservations)
        elif item.cause is PreemptionCause.WITHIN_TENANT:
            assert tree.tenant_of(victim.tenant) == tree.tenant_of(key.tenant)
            is_newer_equal = victim.priority == key.priority and job.submitted_ms < victim.submitted_ms
            assert victim.priority < key.priority or is_newer_equal, f"{item.job} outranks {item.beneficiary}"
        else:
            assert tree.tenant_of(victim.tenant) != tree.tenant_of(key.tenant)
            assert _borrows(tree, victim.tenant, needed), f"{item.job} is within its own quota"
        tree.remove(victim.tenant, usage_of(victim.shape, model_of(victim.flavor, snapshot.flavors)))


def _borrows(tree: Tree, leaf: str, resources: tuple[str, ...]) -> bool:
    return any(tree.usage(leaf, resource) > tree.subtree_quota(leaf, resource) for resource in resources)
