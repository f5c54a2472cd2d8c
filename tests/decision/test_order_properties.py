"""The tournament of classes against a plain queue that compares everybody again before every step.

The plain queue holds no memory, so it cannot be out of date: whatever started or was nominated before, it walks down the tree
with the shares of that moment. A seed that fails is in the message.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from domain.jobs import Shape
from quotas import share
from quotas.amount import Amount
from quotas.tree import Fungibility, NodeKind, Quota, QuotaNode, Tree, WhenCanBorrow
from scheduler.decision import order
from scheduler.decision.fit import Fleet
from scheduler.decision.gate import Option
from scheduler.decision.order import Entry
from scheduler.decision.snapshot import ClassKey, JobClass, PendingJob, Policy, Snapshot
from scheduler.decision.users import Users
from tests.decision.world import World

SEEDS = 600
BLOCK = 150


@pytest.mark.parametrize("first_seed", range(0, SEEDS, BLOCK))
def test_fair_queue_gives_the_order_of_a_queue_that_forgets_everything(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + BLOCK):
        chance = random.Random(seed)
        tree, leaves = random_tree(chance)
        users = Users(empty(tree))
        entries = [random_entry(chance, at, leaves) for at in range(chance.randint(1, 10))]
        queue = order.queue(entries, tree, fair_sharing=True, users=users)
        blocked: set[int] = set()
        for step in range(100):
            expected = plain_head([entry for entry in entries if id(entry) not in blocked and not entry.is_spent], tree, users)
            assert queue.head() is expected, f"seed {seed}, step {step}"
            if expected is None:
                break
            take_a_step(chance, queue, expected, tree, users, blocked)


@pytest.mark.parametrize("first_seed", range(0, SEEDS, BLOCK))
def test_queue_without_fair_sharing_gives_the_order_of_one_that_forgets_everything(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + BLOCK):
        chance = random.Random(seed)
        tree, leaves = tree_of_two_models(chance)
        entries = [random_entry(chance, at, leaves, models=chance.choice((("a",), ("b",), ("a", "b"), ("b", "a")))) for at in range(8)]
        queue = order.queue(entries, tree, fair_sharing=False, users=Users(empty(tree)))
        blocked: set[int] = set()
        for step in range(100):
            left = [entry for entry in entries if id(entry) not in blocked and not entry.is_spent]
            expected = min(left, key=lambda entry: (option_taken(tree, entry)[1], entry.rank()), default=None)
            assert queue.head() is expected, f"seed {seed}, step {step}"
            if expected is None:
                break
            take_a_step(chance, queue, expected, tree, Users(empty(tree)), blocked)


def option_taken(tree: Tree, entry: Entry) -> tuple[Option, bool]:
    """Return the flavor that quota lets a class take, and whether it borrows there: the first that fits, or that fits without borrowing."""
    leaf = entry.job_class.key.tenant
    may_borrow = tree.fungibility_of(leaf).when_can_borrow is WhenCanBorrow.BORROW
    fits = [option for option in entry.options if all(wanted <= tree.available(leaf, name) for name, wanted in option.usage.items())]
    for option in entry.options:
        if not tree.borrows_with(leaf, option.usage):
            return option, False
        if may_borrow and option in fits:
            return option, True
    return entry.options[0], True


def tree_of_two_models(chance: random.Random) -> tuple[Tree, list[str]]:
    nodes = [QuotaNode("root", NodeKind.COHORT, quotas={model: Quota(Amount(chance.choice((2, 6)))) for model in "ab"})]
    for at in range(3):
        quotas = {model: Quota(Amount(chance.choice((0, 0, 3)))) for model in "ab"}
        choice = Fungibility(chance.choice(tuple(WhenCanBorrow)))
        nodes.append(QuotaNode(f"t{at}", NodeKind.TENANT, "root", quotas=quotas, fungibility=choice))
    return Tree(nodes), ["t0", "t1", "t2"]


def empty(tree: Tree) -> Snapshot:
    return Snapshot(0, Policy(), (), {}, tree, Fleet(()))


def random_tree(chance: random.Random) -> tuple[Tree, list[str]]:
    nodes = [QuotaNode("root", NodeKind.COHORT, quotas={"h200": Quota(Amount(chance.choice((4, 20))))})]
    cohorts = ["root"]
    for at in range(chance.randint(0, 3)):
        cohorts.append(f"c{at}")
        nodes.append(QuotaNode(f"c{at}", NodeKind.COHORT, chance.choice(cohorts[:-1]), Fraction(chance.choice((1, 2)))))
    leaves = []
    for at in range(chance.randint(1, 5)):
        quotas = {"h200": Quota(Amount(chance.choice((0, 0, 2))), None, chance.choice((None, Amount(0))))}
        parent = chance.choice([*cohorts, None])
        nodes.append(QuotaNode(f"t{at}", NodeKind.TENANT, parent, Fraction(chance.choice((0, 1, 1, 2))), quotas))
        projects = [f"t{at}p{number}" for number in range(chance.choice((0, 0, 2)))]
        nodes += [QuotaNode(name, NodeKind.PROJECT, f"t{at}") for name in projects]
        leaves += projects or [f"t{at}"]
    return Tree(nodes), leaves


def random_entry(chance: random.Random, at: int, leaves: Sequence[str], models: Sequence[str] = ("h200",)) -> Entry:
    size = Amount(chance.randint(1, 3))
    user = chance.choice((None, "ada", "bob"))
    key = ClassKey(chance.choice(leaves), Shape(tuple(models), 1, size, 1), 1, chance.choice((0, 0, 1)), user=user)
    jobs = [PendingJob(f"{at}-{number}", 10 * at + number, chance.randint(0, 3)) for number in range(chance.randint(1, 4))]
    jobs.sort(key=lambda job: (job.submitted_ms, job.seq))
    return Entry(JobClass(key, jobs), tuple(Option(model, model, {model: size}) for model in models), jobs)


def take_a_step(chance: random.Random, queue: order.Queue, entry: Entry, tree: Tree, users: Users, blocked: set[int]) -> None:
    key = entry.job_class.key
    if chance.random() < 0.2:
        blocked.add(id(entry))
        queue.blocked()
        return
    tree.add(key.tenant, option_taken(tree, entry)[0].usage)
    users.add(key.tenant, key.user, key.shape.milli_gpu)
    entry.started += 1
    queue.started()


def plain_head(entries: Sequence[Entry], tree: Tree, users: Users) -> Entry | None:
    """Walk down from the roots, comparing everybody by what is charged now."""
    roots = [name for node in tree.nodes() if node.parent is None and (name := node.name)]
    best = [entry for name in roots if (entry := _best_below(name, entries, tree, users)) is not None]
    return min(best, key=lambda entry: entry.rank(), default=None)


def _best_below(name: str, entries: Sequence[Entry], tree: Tree, users: Users) -> Entry | None:
    if tree.is_leaf(name):
        mine = [entry for entry in entries if entry.job_class.key.tenant == name]
        return min(mine, key=lambda entry: (entry.rank()[0], users.held(name, entry.job_class.key.user), entry.rank()), default=None)
    best = [(child, entry) for child in tree.children(name) if (entry := _best_below(child, entries, tree, users)) is not None]
    is_tenant = tree.node(name).kind is NodeKind.TENANT

    def key(item: tuple[str, Entry]) -> tuple[object, ...]:
        child, entry = item
        value = share.after(tree, entry.job_class.key.tenant, entry.options[0].usage)[child]
        return (entry.rank()[0], value, entry.rank()) if is_tenant else (value, entry.rank())

    return min(best, key=key)[1] if best else None


def test_project_of_a_tenant_that_borrowed_yields_to_the_other_tenant(world: World) -> None:
    world.node("a", gpus=2)
    world.cohort("all", gpus=2)
    world.tenant("x", 0, parent="all")
    world.project("p", parent="x")
    world.project("r", parent="x")
    world.tenant("y", 0, parent="all")
    of_p, _, of_y = world.job(tenant="p"), world.job(tenant="r"), world.job(tenant="y")
    assert [start.job for start in world.check().starts] == [of_p, of_y]


def test_cohort_whose_member_borrowed_yields_to_the_other_cohort(world: World) -> None:
    world.node("a", gpus=2)
    world.cohort("all", gpus=2)
    for cohort, members in (("left", "xy"), ("right", "z")):
        world.cohort(cohort, parent="all")
        for tenant in members:
            world.tenant(tenant, 0, parent=cohort)
    jobs = {tenant: world.job(tenant=tenant) for tenant in "xyz"}
    assert [start.job for start in world.check().starts] == [jobs["x"], jobs["z"]]
