"""Races between people and the scheduler, brought about on PostgreSQL, where commands run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from billing.calc import rating
from scheduler.decision.snapshot import Policy
from store import cohorts, fleet, identity, jobs, leases, plans, policy, quota_rules
from store.calendar_changes import CreateMaintenance, CreateReservation, Window
from store.engine import Store
from store.errors import ConflictError, RefusalError
from store.leader import TakeLead
from store.usage import LeasesToRate, StoreLines
from tests.store.world import T0_MS, World
from tests.support import invariants
from tests.support.gates import Gate, Gated
from tests.support.statements import rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.postgres

TOMORROW = Window(T0_MS + 86_400_000, T0_MS + 90_000_000, None)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def acme(postgres_url: str) -> Iterator[World]:
    """A tenant and a node; the scheduler leads."""
    store = Store.open(postgres_url)
    world = World(store)
    world.tenant("acme")
    world.node("a")
    assert world.fence
    yield world
    store.close()


def first_then(world: World, first: Any, second: Any) -> tuple[Any, Any]:
    """Run `second` while `first` has done its work and not committed yet; return both outcomes."""
    gate = Gate()
    with ThreadPoolExecutor(2) as pool:
        earlier = pool.submit(world.run, Gated(first, gate))
        gate.wait()
        later = pool.submit(world.run, second)
        wait_until(lambda: later.done() or rows(world.store, WAITING) == [(1,)], seconds=10)
        gate.open()
        return outcome(earlier), outcome(later)


def reservation(identifier: str, name: str, gpus: int) -> CreateReservation:
    """Return the command that sets devices aside for acme tomorrow."""
    return CreateReservation(identifier, name, "acme", "h200", gpus, TOMORROW, T0_MS)


def outcome(answer: Future[Any]) -> Any:
    return answer.exception() or answer.result()


def test_cancel_that_comes_first_makes_the_start_stale(acme: World) -> None:
    job = acme.job()
    cancelled, bound = first_then(
        acme, jobs.CancelJob(job, None, "usr_acme", T0_MS), plans.ApplyPlan(acme.fence, T0_MS, [acme.start(job, on=[("a", 0)])])
    )
    assert (cancelled.state, bound.bound) == ("cancelled", ())
    assert rows(acme.store, "SELECT count(*) FROM lease") == rows(acme.store, "SELECT count(*) FROM device_claim") == [(0,)]
    invariants.check_blocking(acme.store)


def test_cancel_that_comes_second_finds_the_started_job_and_asks_for_its_end(acme: World) -> None:
    job = acme.job()
    bound, cancelled = first_then(
        acme, plans.ApplyPlan(acme.fence, T0_MS, [acme.start(job, on=[("a", 0)])]), jobs.CancelJob(job, None, "usr_acme", T0_MS)
    )
    assert len(bound.bound) == 1
    assert (cancelled.state, cancelled.target) == ("starting", "cancel")
    invariants.check_blocking(acme.store)


def test_end_that_was_seen_while_a_cancel_commits_is_dropped_and_chosen_again(acme: World) -> None:
    job = acme.job()
    lease = acme.lease(job, on=[("a", 0)])
    end = leases.Change(
        lease, lease={"ended_at_ms": T0_MS, "end_cause": "completed"}, attempt={"ended_at_ms": T0_MS, "outcome": "completed"},
        job_version=acme.open_lease(lease).job_version, job={"state": "succeeded", "ended_at_ms": T0_MS},
    )  # fmt: skip
    cancelled, applied = first_then(acme, jobs.CancelJob(job, None, "usr_acme", T0_MS), leases.ApplyChanges(acme.fence, [end], T0_MS))
    assert (cancelled.state, applied) == ("starting", 0)
    invariants.check_blocking(acme.store)


def test_scheduler_that_is_overtaken_before_its_bind_writes_nothing(acme: World) -> None:
    job = acme.job()
    bind = plans.ApplyPlan(acme.fence, T0_MS, [acme.start(job, on=[("a", 0)])])
    taken, bound = first_then(acme, TakeLead("scheduler", "sch_2", T0_MS + 9_999, 5_000), bind)
    assert taken.epoch == 2
    assert isinstance(bound, RefusalError)
    assert bound.code == "not_leading"
    assert acme.view(job).state == "queued"


def test_two_schedulers_take_the_lead_at_once_and_one_gets_it(acme: World) -> None:
    first, second = (TakeLead("scheduler", holder, T0_MS + 9_999, 5_000) for holder in ("sch_2", "sch_3"))
    won, lost = first_then(acme, first, second)
    assert (won.epoch, lost) == (2, None)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda number: fleet.CreateNode(f"nod_{number}", "b", "hanoi", None, T0_MS), id="node"),
        pytest.param(lambda number: identity.CreateTenant(f"ten_{number}", f"prj_{number}", "b", None, 1_000, T0_MS), id="tenant"),
        pytest.param(lambda number: identity.CreateUser(f"usr_{number}", "b", "operator", None, T0_MS), id="operator"),
        pytest.param(lambda number: fleet.CreatePrice(f"pri_{number}", "h200", "USD", 1, T0_MS, T0_MS), id="price"),
        pytest.param(lambda _: cohorts.CreateCohort("b", None, 1_000, T0_MS), id="cohort"),
        pytest.param(lambda number: reservation(f"res_{number}", "b", 1), id="capacity reservation"),
        pytest.param(lambda number: CreateMaintenance(f"mnt_{number}", "b", ["a"], TOMORROW, T0_MS), id="maintenance"),
    ],
)
def test_second_of_two_who_want_a_name_is_a_conflict(acme: World, make: Any) -> None:
    _, late = first_then(acme, make(1), make(2))
    assert isinstance(late, ConflictError)


def test_two_moves_that_are_right_apart_make_no_ring(acme: World) -> None:
    for name in ("b", "c"):
        acme.run(cohorts.CreateCohort(name, None, 1_000, T0_MS))
    moves = (cohorts.SetCohort("b", True, "c", None, T0_MS), cohorts.SetCohort("c", True, "b", None, T0_MS))
    moved, late = first_then(acme, *moves)
    assert (moved.parent, getattr(late, "code", None)) == ("c", "cohort_ring")


def test_two_reservations_that_fit_apart_do_not_exceed_the_fleet_together(acme: World) -> None:
    made, late = first_then(acme, reservation("res_1", "b", 5), reservation("res_2", "c", 5))
    assert (made.milli_gpu, getattr(late, "code", None)) == (5_000, "over_capacity")
    assert rows(acme.store, "SELECT name FROM capacity_reservation") == [("b",)]


def test_fields_of_the_policy_that_two_change_at_once_are_both_kept(acme: World) -> None:
    changes = [{"backfill_depth": 2}, {"min_runtime_ms": 3}]
    first_then(acme, *(policy.SetPolicy(Policy(), change, T0_MS) for change in changes))
    assert acme.read(policy.ReadPolicy(Policy())).chosen == ("backfill_depth", "min_runtime_ms")


def test_fair_sharing_and_what_it_excludes_do_not_come_at_once(acme: World) -> None:
    acme.run(policy.SetPolicy(Policy(), {"fair_sharing": False}, T0_MS))
    rules = quota_rules.SetRules("acme", None, {"borrow_within_cohort": "lower_priority"}, Policy(), T0_MS)
    _, late = first_then(acme, rules, policy.SetPolicy(Policy(), {"fair_sharing": True}, T0_MS))
    assert getattr(late, "code", None) == "borrows_with_fair_sharing"


def test_batches_with_the_same_new_classes_in_other_orders_do_not_lock_each_other_out(acme: World) -> None:
    one, other = acme.submission(gpus=1), acme.submission(gpus=2)
    forth = jobs.SubmitJobs(one.submitter, [*one.jobs, *other.jobs], T0_MS)
    again, more = acme.submission(gpus=2), acme.submission(gpus=1)
    back = jobs.SubmitJobs(one.submitter, [*again.jobs, *more.jobs], T0_MS)
    earlier, later = first_then(acme, forth, back)
    assert [len(earlier), len(later)] == [2, 2]
    assert rows(acme.store, "SELECT count(*) FROM job_class") == [(2,)]


def ended_lease(world: World) -> StoreLines:
    """A lease that ended after ten milliseconds, and its lines by the price book of this moment."""
    world.run_to_the_end(world.lease(world.job(), on=[("a", 0)]), running_ms=1, ended_ms=10, released_ms=10)
    batch = world.read(LeasesToRate("USD"))
    lines = [line for lease in batch.leases for line in rating.rate(lease, batch.prices)]
    return StoreLines(lines, [lease.id for lease in batch.leases], "USD", world.now_ms, batch.prices)


def test_price_that_comes_while_lines_commit_is_refused_for_the_time_that_they_rate(acme: World) -> None:
    rated, price = first_then(acme, ended_lease(acme), fleet.CreatePrice("pri_new", "h200", "USD", 42, T0_MS + 5, T0_MS))
    assert rated == 1
    assert isinstance(price, RefusalError)
    assert (price.code, price.data) == ("price_in_the_past", {"field": "valid_from", "limit_ms": T0_MS + 10})


def test_lines_that_come_while_a_price_commits_are_not_stored(acme: World) -> None:
    lines = ended_lease(acme)
    price, rated = first_then(acme, fleet.CreatePrice("pri_new", "h200", "USD", 42, T0_MS + 5, T0_MS), lines)
    assert (price.id, rated) == ("pri_new", None)
