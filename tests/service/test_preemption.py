"""Preemption by the live loop: the victim gets notice and its grace, the freed slices are the beneficiary's, the victim's work goes on."""

from __future__ import annotations

import json

from executors.fake import Script
from quotas.tree import Reclaim
from scheduler.decision.plan import PreemptionCause
from scheduler.decision.snapshot import Policy
from scheduler.service import SchedulerSettings
from store import tables
from store.engine import Store
from store.policy import SetPolicy
from store.quota_rules import SetRules
from tests.support.fleet import MINUTE_MS, Fleet

LONG = Script(duration_ms=20 * MINUTE_MS, stop_ms=4_000, stop_exit_code=0)


async def lending(store: Store, *, attempts: int = 3) -> tuple[Fleet, str, str]:
    """Return a world of 4 GPUs, 2 for each tenant, in which `acme` borrows all of them and `zeta` has just asked for its own."""
    world = await Fleet(store).begin(nodes={"node-a": 4}, quota=2, cohort="fleet")
    await world.add_tenant("zeta", 2, cohort="fleet")
    await store.run(SetRules("zeta", None, {"reclaim_within_cohort": Reclaim.ANY.value}, Policy(), world.now_ms))
    for _ in range(2):
        victim = await world.submit(gpus=2, script=[LONG, Script(duration_ms=1_000)], attempts=attempts)
        await world.settle()
        await world.pass_time(1_000)
    beneficiary = await world.submit(tenant="zeta", gpus=2)
    await world.step()
    return world, victim, beneficiary


async def test_lent_quota_is_taken_back_from_the_newest_borrower_with_notice(store: Store) -> None:
    world, victim, beneficiary = await lending(store)

    (lease,) = await world.leases(victim)
    assert (lease["target"], lease["stop_cause"], lease["preemption_cause"]) == ("stop", "reclaimed", PreemptionCause.RECLAIM.value)
    assert (lease["beneficiary_job_id"], lease["ended_at_ms"]) == (beneficiary, None)
    answer = (await world.job(beneficiary)).answer
    data = json.loads(answer.reason_data or "")
    assert (answer.reason_code, data["victims"], data["victims_of_others"]) == ("waiting_for_preempted", [], 1)


async def test_beneficiary_starts_on_the_slices_of_its_victim_once_they_are_proven_free(store: Store) -> None:
    world, victim, beneficiary = await lending(store)
    await world.settle()
    assert (await world.state(beneficiary), len(await world.rows(tables.Nomination))) == ("queued", 1)

    await world.pass_time(4_000)
    await world.settle()

    devices: dict[str, set[str]] = {}
    for row in await world.rows(tables.LeaseSlice):
        devices.setdefault(row["lease_id"], set()).add(row["device_id"])
    (old,), (new,) = await world.leases(victim), await world.leases(beneficiary)
    assert (devices[new["id"]], await world.state(beneficiary)) == (devices[old["id"]], "running")
    assert await world.rows(tables.Nomination) == []


async def test_victim_is_queued_again_for_its_next_attempt_whatever_its_exit_code_and_loses_no_attempt(store: Store) -> None:
    world, victim, beneficiary = await lending(store, attempts=1)
    await world.pass_time(4_000)
    await world.settle()

    (row,) = [row for row in await world.rows(tables.Job) if row["id"] == victim]
    assert (row["state"], row["was_preempted"], row["failed_attempts"]) == ("queued", True, 0)
    assert await world.outcomes(victim) == ["reclaimed"]

    await world.until_ended(victim, beneficiary)
    assert [await world.state(job) for job in (victim, beneficiary)] == ["succeeded", "succeeded"]


async def test_new_leader_honours_the_nominations_and_stops_of_the_one_before(store: Store) -> None:
    world, victim, beneficiary = await lending(store)
    world.loop = world.scheduler()
    await world.pass_time(world.settings.term_ms)
    await world.settle()

    assert (await world.state(beneficiary), await world.outcomes(victim)) == ("running", ["reclaimed"])
    assert len(world.orders.started) == len(set(world.orders.started))


async def test_cancelled_beneficiary_gives_its_nomination_up_and_the_victim_comes_back(store: Store) -> None:
    world, victim, beneficiary = await lending(store)
    await world.cancel(beneficiary)
    await world.pass_time(4_000)
    await world.settle()

    assert await world.rows(tables.Nomination) == []
    assert (await world.state(victim), len(await world.leases(victim))) == ("running", 2)


async def test_victim_that_ends_by_itself_before_the_stop_counts_as_it_ended(store: Store) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 2}, quota=1, cohort="fleet")
    await world.add_tenant("zeta", 1, cohort="fleet")
    await store.run(SetRules("zeta", None, {"reclaim_within_cohort": Reclaim.ANY.value}, Policy(), world.now_ms))
    victim = await world.submit(gpus=2, script=Script(duration_ms=10_000, exit_code=3))
    await world.settle()
    await world.pass_time(10_000)  # it has failed, and nobody has applied that yet
    await world.submit(tenant="zeta", gpus=1)
    await world.settle()

    assert (await world.state(victim), await world.outcomes(victim)) == ("failed", ["failed"])


async def test_rate_limit_of_a_pool_holds_across_leaders(store: Store) -> None:
    world, _, beneficiary = await lending(store)
    await store.run(SetPolicy(SchedulerSettings().policy, {"preemptions_per_hour": 1}, world.now_ms))
    await world.pass_time(4_000)
    await world.settle()
    second = await world.submit(tenant="zeta", gpus=2, script=LONG)
    world.loop = world.scheduler()
    await world.pass_time(world.settings.term_ms)
    await world.settle()

    assert {row["beneficiary_job_id"] for row in await world.rows(tables.Lease)} <= {None, beneficiary}
    assert await world.state(second) == "queued"
