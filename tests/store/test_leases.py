"""Binding, changing and releasing leases as the leading scheduler does: guarded, whole, and each thing once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store import jobs
from store.agent_reports import Seen
from store.leases import Change, OpenLeases
from store.observations import OpenObservations
from tests.store.world import T0_MS, World
from tests.support import invariants
from tests.support.statements import change, rows

CLAIMS = "SELECT device_id, lease_id FROM device_claim ORDER BY device_id"


@pytest.fixture
def acme(world: World) -> World:
    """A tenant and a node."""
    world.tenant("acme")
    world.node("a")
    return world


def test_start_makes_lease_slices_claims_attempt_and_event_at_once(acme: World) -> None:
    job = acme.job(gpus=2)
    acme.now_ms += 7
    assert acme.bind(acme.start(job, on=[("a", 2), ("a", 5)], lease="lea_a")) == ("lea_a",)
    assert rows(acme.store, CLAIMS) == [("GPU-a-2", "lea_a"), ("GPU-a-5", "lea_a")]
    lease = acme.open_lease("lea_a")
    assert (lease.job_id, lease.attempt, lease.target, lease.granted_at_ms, lease.grace_ms) == (job, 1, "run", T0_MS + 7, 10_000)
    assert (lease.job_state, lease.job_attempt, [part.node for part in lease.parts]) == ("starting", 1, ["a"])
    assert rows(acme.store, "SELECT kind, lease_id, data FROM event ORDER BY id")[-1] == ("job_leased", "lea_a", '{"attempt":1,"slices":2}')
    invariants.check_blocking(acme.store)


def test_lease_without_gpus_holds_cpu_and_memory_of_its_node_only(acme: World) -> None:
    start = replace(acme.start(acme.job(gpus=0), on=[], lease="lea_a"), flavor=None, node_ids=["nod_a"], nodes=["a"])
    assert acme.bind(start) == ("lea_a",)
    assert rows(acme.store, CLAIMS) == []
    invariants.check_blocking(acme.store)


def test_start_on_a_device_that_is_taken_is_dropped_alone(acme: World) -> None:
    first, second, third = acme.job(), acme.job(), acme.job()
    acme.lease(first, on=[("a", 0)])
    stale, good = acme.start(second, on=[("a", 0)], lease="lea_stale"), acme.start(third, on=[("a", 1)], lease="lea_good")
    assert acme.bind(stale, good) == ("lea_good",)
    assert [acme.view(job).state for job in (second, third)] == ["queued", "starting"]
    invariants.check_blocking(acme.store)


def test_gang_of_which_one_device_is_taken_gets_none(acme: World) -> None:
    acme.lease(acme.job(), on=[("a", 1)])
    gang = acme.job(gpus=3)
    assert acme.bind(acme.start(gang, on=[("a", 0), ("a", 1), ("a", 2)])) == ()
    assert [device for device, _ in rows(acme.store, CLAIMS)] == ["GPU-a-1"]
    invariants.check_blocking(acme.store)


@pytest.mark.parametrize("attempt", [0, 2], ids=["an attempt that was", "an attempt that is not due"])
def test_start_for_another_attempt_is_stale(acme: World, attempt: int) -> None:
    job = acme.job()
    assert acme.bind(acme.start(job, on=[("a", 0)], attempt=attempt)) == ()
    assert (acme.view(job).state, rows(acme.store, CLAIMS)) == ("queued", [])


def test_start_of_a_job_that_was_cancelled_is_stale(acme: World) -> None:
    job = acme.job()
    acme.run(jobs.CancelJob(job, None, "usr_acme", T0_MS))
    assert acme.bind(acme.start(job, on=[("a", 0)])) == ()
    assert rows(acme.store, CLAIMS) == []
    invariants.check_blocking(acme.store)


def test_same_plan_applied_twice_starts_once(acme: World) -> None:
    job = acme.job()
    assert len(acme.bind(acme.start(job, on=[("a", 0)]))) == 1
    assert acme.bind(acme.start(job, on=[("a", 1)])) == ()
    invariants.check_blocking(acme.store)


def test_device_in_another_mode_is_stale(acme: World) -> None:
    change(acme.store, "UPDATE device SET mode = 'mig' WHERE id = 'GPU-a-0'")
    assert acme.bind(acme.start(acme.job(), on=[("a", 0)])) == ()
    invariants.check_blocking(acme.store)


def test_released_lease_frees_its_devices_for_the_next(acme: World) -> None:
    first, second = acme.job(), acme.job()
    lease = acme.lease(first, on=[("a", 0)])
    acme.run_to_the_end(lease)
    assert acme.view(first).state == "succeeded"
    assert acme.read(OpenLeases([lease])) == ()
    acme.lease(second, on=[("a", 0)])
    invariants.check_blocking(acme.store)


def test_change_for_a_job_that_moved_on_is_dropped_whole_and_its_observation_stays_open(acme: World) -> None:
    job = acme.job()
    lease = acme.lease(job, on=[("a", 0)])
    acme.report("a", seen=[Seen(1, "started", lease, T0_MS, {})])
    (seen,) = acme.read(OpenObservations())
    stale = Change(lease, (seen.id,), {"running_at_ms": T0_MS}, job_version=acme.open_lease(lease).job_version, job={"state": "running"})
    acme.run(jobs.CancelJob(job, None, "usr_acme", T0_MS))
    assert acme.apply(stale) == 0
    assert acme.open_lease(lease).running_at_ms is None
    assert acme.read(OpenObservations()) == (seen,)
    invariants.check_blocking(acme.store)


def test_observation_that_was_applied_makes_its_change_void(acme: World) -> None:
    lease = acme.lease(acme.job(), on=[("a", 0)])
    acme.report("a", seen=[Seen(number, "progress", lease, T0_MS, {}) for number in (1, 2)])
    first, second = (seen.id for seen in acme.read(OpenObservations()))
    assert acme.apply(Change(lease, (first,), {"handle": "one"})) == 1
    assert acme.apply(Change(lease, (first, second), {"handle": "two"})) == 0
    assert acme.open_lease(lease).handle == "one"
    assert [seen.id for seen in acme.read(OpenObservations())] == [second]


def test_changes_of_one_command_follow_one_another(acme: World) -> None:
    lease = acme.lease(acme.job(), on=[("a", 0)])
    assert acme.apply(Change(lease, lease={"handle": "one"}), Change(lease, lease={"handle": "two"})) == 2
    assert acme.open_lease(lease).handle == "two"


def test_attempt_of_a_requeued_job_is_the_next_and_its_old_lease_may_still_be_held(acme: World) -> None:
    job = acme.job()
    first = acme.lease(job, on=[("a", 0)])
    open_lease = acme.open_lease(first)
    end = {"ended_at_ms": T0_MS + 9, "end_cause": "node_lost", "target": "stop"}
    outcome = {"ended_at_ms": T0_MS + 9, "outcome": "node_lost"}
    job_change = {"state": "queued", "failed_attempts": 1}
    told = (("job_queued", {"attempt": 1}),)
    acme.apply(Change(first, lease=end, attempt=outcome, job_version=open_lease.job_version, job=job_change, events=told))
    acme.now_ms += 10
    second = acme.lease(job, on=[("a", 1)], attempt=2)
    assert [(lease.id, lease.attempt, lease.job_attempt) for lease in acme.read(OpenLeases())] == [(first, 1, 2), (second, 2, 2)]
    assert [attempt.outcome for attempt in acme.attempts(job)[1]] == ["node_lost", None]
    invariants.check_blocking(acme.store)
