"""Random worlds from a seed: trees of cohorts with every preemption policy, mixed nodes, running and waiting jobs.

Owns the shapes only; what must hold for them stands in the tests. The same seed gives the same world on every machine.
"""

from __future__ import annotations

import random
from dataclasses import replace

from quotas.amount import Amount
from quotas.tree import BorrowPreempt, Fungibility, Preemption, PreemptWithin, Quota, Reclaim, WhenCanBorrow, WhenCanPreempt
from scheduler.decision.snapshot import Placement, Policy, Victims
from scheduler.decision.where import Where, Within
from tests.decision.world import HOUR_MS, World, quota

MODELS = ("h200", "l40s")


def random_world(seed: int, *, has_backfill: bool = True) -> World:
    """Return a world of up to four nodes, five tenants and a dozen jobs."""
    chance = random.Random(seed)
    policy = Policy(
        fair_sharing=chance.random() < 0.5,
        fair_share_half_life_ms=0,
        backfill_depth=chance.choice((0, 1, 100)) if has_backfill else 0,
        min_runtime_ms=chance.choice((0, 0, 0, 5_000)),
        preemption_grace_ms=chance.choice((0, 10_000)),
        victims=chance.choice(tuple(Victims)),
        placement=chance.choice(tuple(Placement)),
        spans_nodes=chance.random() < 0.8,
    )
    world = World(policy=policy)
    leaves = _tree(world, chance)
    _running(world, chance, leaves)
    for _ in range(chance.randint(1, 8)):
        _job(world, chance, leaves)
    if chance.random() < 0.3:
        _windows(world, chance, leaves)
    return world


def _windows(world: World, chance: random.Random, leaves: list[str]) -> None:
    start_ms = chance.choice((-1, 0, HOUR_MS, 2 * HOUR_MS))
    world.reserve("contest", chance.randint(1, 6), tenant=chance.choice(leaves), start_ms=start_ms, end_ms=start_ms + HOUR_MS)
    if chance.random() < 0.5:
        world.reserve("second", chance.randint(1, 4), tenant=chance.choice(leaves), start_ms=HOUR_MS, end_ms=2 * HOUR_MS)
    if chance.random() < 0.3:
        world.maintain(chance.choice(world.nodes).name, start_ms=start_ms, end_ms=start_ms + HOUR_MS)


def _tree(world: World, chance: random.Random) -> list[str]:
    world.cohort("root", gpus=chance.choice((0, 0, 4)))
    cohorts = ["root"]
    for at in range(chance.randint(0, 2)):
        cohorts.append(world.cohort(f"c{at}", parent=chance.choice(cohorts), gpus=chance.choice((0, 2, 4))))
    leaves = []
    for at in range(chance.randint(2, 4)):
        name = world.tenant(f"t{at}", parent=chance.choice([*cohorts, None]), models=MODELS, weight=chance.choice((0, 1, 1, 2)))
        world.quota_nodes[name] = replace(
            world.quota_nodes[name],
            quotas={model: _quota(world, chance, name) for model in MODELS},
            preemption=_preemption(world, chance),
            fungibility=Fungibility(chance.choice(tuple(WhenCanBorrow)), chance.choice(tuple(WhenCanPreempt))),
            user_cap=chance.choice((None, None, Amount(2_000))),
        )
        if chance.random() < 0.2:
            leaves += [world.project(f"{name}p{number}", chance.choice((0, 2)), parent=name) for number in range(2)]
        else:
            leaves.append(name)
    return leaves


def _quota(world: World, chance: random.Random, name: str) -> Quota:
    nominal = chance.choice((0, 1, 2, 4))
    can_borrow = world.quota_nodes[name].parent is not None
    borrow = chance.choice((None, None, 0, 2)) if can_borrow else None
    return quota(nominal, borrow=borrow, lend=chance.choice((None, None, nominal // 2)) if can_borrow else None)


def _preemption(world: World, chance: random.Random) -> Preemption:
    reclaim = chance.choice((*Reclaim, Reclaim.ANY))
    may_borrow = not world.policy.fair_sharing and reclaim is not Reclaim.NEVER
    borrow = chance.choice(tuple(BorrowPreempt)) if may_borrow else BorrowPreempt.NEVER
    return Preemption(chance.choice((*PreemptWithin, PreemptWithin.LOWER_OR_NEWER_EQUAL)), reclaim, borrow, chance.choice((None, 0, 1)))


def _running(world: World, chance: random.Random, leaves: list[str]) -> None:
    for at in range(chance.randint(1, 4)):
        model = chance.choice((*MODELS, "h200", "h200"))
        node = world.node(f"n{at}", gpus=chance.randint(1, 8), model=model, site=chance.choice(("hanoi", "hanoi", "hue")))
        free = list(range(len(world.nodes[-1].devices)))
        while free and chance.random() < 0.95:
            size = min(len(free), chance.choice((1, 1, 2, 4)))
            devices, free = free[:size], free[size:]
            started_ms = -chance.randint(0, 20) * 1_000
            world.runs(
                {node: devices},
                tenant=chance.choice(leaves),
                model=model,
                started_ms=started_ms,
                limit_ms=chance.randint(1, 3) * HOUR_MS,
                priority=chance.randint(-1, 2),
                cpus=chance.choice((0, 8)),
                is_preemptible=chance.random() < 0.9,
                user=chance.choice((None, "ada")),
                checkpoint_ms=chance.choice((None, started_ms // 2)),
            )


def _job(world: World, chance: random.Random, leaves: list[str]) -> None:
    world.job(
        gpus=chance.choice((0, 1, 1, 2, 2, 4)),
        replicas=chance.choice((1, 1, 1, 2)),
        tenant=chance.choice(leaves),
        models=chance.choice((MODELS, ("h200",), ("h200",), ("l40s", "h200"))),
        priority=chance.randint(-1, 2),
        limit_ms=chance.randint(1, 3) * HOUR_MS,
        submitted_ms=-chance.randint(0, 20) * 1_000,
        cpus=chance.choice((0, 0, 8, 60)) or 1,
        user=chance.choice((None, None, "ada", "bob")),
        where=Where(within=chance.choice((Within.SITE, Within.SITE, Within.NODE))),
    )
