"""From submit to its end: what a job and its leases go through when nobody interferes."""

from __future__ import annotations

from executors.fake import Script
from store.engine import Store
from tests.support.fleet import MINUTE_MS, T0_MS, Fleet


async def test_job_is_leased_runs_and_succeeds(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(gpus=2)

    await world.settle()
    assert await world.state(job) == "running"
    await world.pass_time(20_000)
    await world.settle()

    (lease,) = await world.leases(job)
    stamps = ("granted_at_ms", "running_at_ms", "ended_at_ms", "released_at_ms")
    assert await world.state(job) == "succeeded"
    assert [lease[name] - T0_MS for name in stamps] == [0, 0, 20_000, 20_000]
    assert (lease["end_cause"], lease["handle"]) == ("completed", f'{{"executor":"fake","lease":"{lease["id"]}"}}')
    assert await world.events(job) == ["job_submitted", "job_leased", "job_started", "lease_ended", "job_succeeded", "lease_released"]


async def test_job_whose_start_and_exit_arrive_together_succeeds(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(script=Script(start_ms=100, duration_ms=1))
    await world.step()

    await world.pass_time(1_000)
    await world.step()

    (lease,) = await world.leases(job)
    assert await world.state(job) == "succeeded"
    assert (lease["ended_at_ms"] - lease["running_at_ms"], lease["released_at_ms"] is None) == (1, False)


async def test_failure_that_the_user_caused_ends_the_job_at_its_first_attempt(store: Store) -> None:
    world = await Fleet(store).begin()
    failures = ("user_code", "out_of_memory", "environment", "time_limit")
    made = {name: await world.submit(script=Script(duration_ms=1_000, exit_code=7, failure_class=name, message="why")) for name in failures}

    await world.until_ended(*made.values())

    views = {name: await world.job(job) for name, job in made.items()}
    told = {name: (view.state, view.attempt, view.exit_code, view.failure_class, view.message) for name, view in views.items()}
    assert told == {name: ("failed", 1, 7, name, "why") for name in failures}
    assert [await world.outcomes(job) for job in made.values()] == [["failed"], ["failed"], ["failed"], ["time_limit"]]


async def test_failure_that_is_not_the_users_brings_the_next_attempt(store: Store) -> None:
    world = await Fleet(store).begin()
    failures = ("node", "device", "platform", "a word that nobody knows", "dependency_failed")
    broken = [Script(duration_ms=1_000, exit_code=None, failure_class=failure) for failure in failures]
    made = [await world.submit(script=[script, Script(duration_ms=1_000)]) for script in broken]

    await world.until_ended(*made)

    views = [await world.job(job) for job in made]
    assert [(view.state, view.attempt, view.exit_code, view.failure_class) for view in views] == [("succeeded", 2, 0, None)] * len(made)
    assert [await world.outcomes(job) for job in made] == [["evicted", "completed"]] * len(made)


async def test_job_that_the_platform_fails_at_every_attempt_fails(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(attempts=2, script=Script(duration_ms=1_000, exit_code=None, failure_class="device"))

    await world.until_ended(job)

    view = await world.job(job)
    assert (view.state, view.attempt, view.failure_class) == ("failed", 2, "device")
    assert await world.outcomes(job) == ["evicted", "evicted"]


async def test_job_is_ended_at_its_time_limit(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(limit_ms=MINUTE_MS, script=Script(duration_ms=10 * MINUTE_MS, stop_ms=2_000))

    await world.until_ended(job)

    (lease,) = await world.leases(job)
    assert ((await world.job(job)).failure_class, lease["end_cause"]) == ("time_limit", "time_limit")
    assert lease["ended_at_ms"] - lease["running_at_ms"] == MINUTE_MS + 2_000


async def test_lease_that_does_not_come_up_is_stopped_and_tried_again(store: Store) -> None:
    world = await Fleet(store).begin()
    job = await world.submit(attempts=2, script=Script(start_ms=60 * MINUTE_MS))

    await world.until_ended(job, step_ms=5 * MINUTE_MS)

    first, second = await world.leases(job)
    view = await world.job(job)
    assert (view.state, view.failure_class, view.message) == ("failed", "platform", "stopped before it was started")
    assert [lease["end_cause"] for lease in (first, second)] == ["never_started", "never_started"]
    assert first["ended_at_ms"] - first["granted_at_ms"] == world.settings.start_deadline_ms
