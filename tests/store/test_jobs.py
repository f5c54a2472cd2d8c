"""Submitting and cancelling: all of a batch or none, the newest answer of the class at once, and no job that is lost in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from store import jobs, leases
from store.archives import RecordArchive
from store.errors import InvalidError, NotFoundError
from store.job_reads import ClassAnswer, JobById, JobsPage, OpenJobs
from tests.store.world import HOUR_MS, T0_MS, World
from tests.support import invariants
from tests.support.statements import change, rows

SHA = "a" * 64


@pytest.fixture
def acme(world: World) -> World:
    """A tenant and a node."""
    world.tenant("acme")
    world.node("a")
    return world


def cancel(world: World, job: str, *, tenant: str | None = "ten_acme") -> Any:
    return world.run(jobs.CancelJob(job, tenant, "usr_acme", world.now_ms + 5))


def test_accepted_job_reads_back_as_it_was_answered(acme: World) -> None:
    (answered,) = acme.run(acme.submission(gpus=2, replicas=2, name="mnist", maximum_attempts=5))
    assert acme.view(answered.id) == replace(answered, seq=1, flavors=["h200"])
    assert (answered.state, answered.target, answered.attempt, answered.answer) == ("queued", "run", 0, ClassAnswer())
    assert (answered.flavors, answered.replicas, answered.slices_per_replica, answered.limit_ms) == (("h200",), 2, 2, HOUR_MS)
    assert (answered.entrypoint, answered.submitted_at_ms, answered.maximum_attempts) == (["python", "train.py"], T0_MS, 5)


def test_batch_arrives_in_the_order_of_the_request_and_shares_its_classes(acme: World) -> None:
    views = acme.run(acme.submission(count=5)) + acme.run(acme.submission(count=2, gpus=2))
    found = rows(acme.store, "SELECT id FROM job ORDER BY seq")
    assert found == [(view.id,) for view in views]
    assert rows(acme.store, "SELECT count(*) FROM job_class") == [(2,)]
    assert rows(acme.store, "SELECT count(*) FROM event WHERE kind = 'job_submitted'") == [(7,)]


def test_batch_with_one_job_that_cannot_be_is_refused_whole(acme: World) -> None:
    good = acme.submission(count=2)
    bad = replace(good, jobs=[good.jobs[0], replace(good.jobs[1], archive_sha256=SHA)], is_batch=True)
    with pytest.raises(InvalidError) as refused:
        acme.run(bad)
    assert (refused.value.code, refused.value.data) == ("archive_not_uploaded", {"field": "jobs[1].archive_sha256"})
    assert rows(acme.store, "SELECT count(*) FROM job") == rows(acme.store, "SELECT count(*) FROM job_class") == [(0,)]


def test_archive_of_another_tenant_was_not_uploaded(acme: World) -> None:
    acme.tenant("other")
    acme.run(RecordArchive("ten_other", SHA, 10, T0_MS))
    with pytest.raises(InvalidError, match="was not uploaded"):
        acme.job(archive_sha256=SHA)
    acme.run(RecordArchive("ten_acme", SHA, 10, T0_MS))
    assert acme.view(acme.job(archive_sha256=SHA)).state == "queued"


def test_job_joins_a_class_and_gets_its_newest_answer(acme: World) -> None:
    first = acme.job()
    ((class_id,),) = rows(acme.store, "SELECT class_id FROM job")
    answer = leases.ClassAnswer(class_id, "no_capacity", '{"needs":1}', "any_job_ends", T0_MS + 60, None)
    acme.run(leases.AnswerClasses(acme.fence, [answer], T0_MS + 1))
    expected = ClassAnswer("no_capacity", '{"needs":1}', "any_job_ends", T0_MS + 60, None, T0_MS + 1)
    (second,) = acme.run(acme.submission())
    assert (acme.view(first).answer, second.answer) == (expected, expected)


@pytest.mark.parametrize("other", [{"gpus": 2}, {"replicas": 2}, {"tenant": "other"}], ids=["shape", "gang", "tenant"])
def test_jobs_that_differ_are_in_other_classes(acme: World, other: dict[str, Any]) -> None:
    acme.tenant("other")
    acme.job()
    acme.job(**other)
    assert rows(acme.store, "SELECT count(DISTINCT class_id) FROM job") == [(2,)]
    invariants.check_blocking(acme.store)


def test_queued_job_is_cancelled_at_once(acme: World) -> None:
    view = cancel(acme, acme.job())
    assert (view.state, view.target, view.ended_at_ms) == ("cancelled", "cancel", T0_MS + 5)
    kinds = [row[0] for row in rows(acme.store, "SELECT kind FROM event WHERE job_id IS NOT NULL ORDER BY id")]
    assert kinds == ["job_submitted", "job_cancel_requested", "job_cancelled"]
    invariants.check_blocking(acme.store)


def test_job_that_holds_slices_is_only_asked_to_end(acme: World) -> None:
    job = acme.job()
    acme.lease(job, on=[("a", 0)])
    view = cancel(acme, job)
    assert (view.state, view.target, view.ended_at_ms) == ("starting", "cancel", None)
    invariants.check_blocking(acme.store)


def test_second_cancel_changes_nothing(acme: World) -> None:
    job = acme.job()
    assert cancel(acme, job) == cancel(acme, job)
    assert rows(acme.store, "SELECT version FROM job") == [(1,)]
    assert rows(acme.store, "SELECT count(*) FROM event WHERE job_id IS NOT NULL") == [(3,)]


@pytest.mark.parametrize(("job", "tenant"), [("job_none", None), ("job_000002", "ten_other")], ids=["no such job", "another tenant's"])
def test_job_of_somebody_else_is_missing(acme: World, job: str, tenant: str | None) -> None:
    assert acme.job() == "job_000002"
    with pytest.raises(NotFoundError, match="there is no job"):
        cancel(acme, job, tenant=tenant)
    with pytest.raises(NotFoundError, match="there is no job"):
        acme.read(JobById(job, tenant))
    assert acme.view("job_000002").state == "queued"


def test_pages_are_newest_first_and_narrow(acme: World) -> None:
    acme.tenant("other")
    mine = [acme.job() for _ in range(3)]
    acme.job(tenant="other")
    cancel(acme, mine[0])
    page = acme.read(JobsPage(limit=2, tenant_id="ten_acme"))
    assert [view.id for view in page] == [mine[2], mine[1]]
    assert [view.id for view in acme.read(JobsPage(limit=2, before_seq=page[-1].seq, tenant_id="ten_acme"))] == [mine[0]]
    assert [view.tenant for view in acme.read(JobsPage(limit=9))] == ["other", "acme", "acme", "acme"]
    assert [view.id for view in acme.read(JobsPage(limit=9, tenant="acme", project="default", states=["cancelled"]))] == [mine[0]]


def test_open_jobs_are_counted_up_to_the_maximum(acme: World) -> None:
    mine = acme.run(acme.submission(count=4))
    cancel(acme, mine[0].id)
    acme.lease(mine[1].id, on=[("a", 0)])
    assert [acme.read(OpenJobs("ten_acme", maximum)) for maximum in (2, 3, 10)] == [2, 3, 3]
    assert acme.read(OpenJobs("ten_other", 10)) == 0


def test_attempts_come_with_their_slices(acme: World) -> None:
    job = acme.job(gpus=2)
    lease = acme.lease(job, on=[("a", 3), ("a", 1)])
    _, (attempt,) = acme.attempts(job)
    assert (attempt.number, attempt.lease_id, attempt.created_at_ms, attempt.outcome) == (1, lease, T0_MS, None)
    assert [(item.node, item.device_index, item.device_uuid) for item in attempt.slices] == [("a", 3, "GPU-a-3"), ("a", 1, "GPU-a-1")]


def test_word_that_looks_like_sql_stays_a_word(acme: World) -> None:
    name = "'; DROP TABLE job; -- %s ? :x"
    (view,) = acme.run(acme.submission(name=name, environment={name: name}))
    assert acme.view(view.id).name == name
    assert change(acme.store, "UPDATE job SET name = NULL") == 1
