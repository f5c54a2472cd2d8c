"""Submitting and cancelling jobs: the hot path of the intake.

Owns the insert of job rows and of their classes, and the change of a job's target. It starts, ends and moves nothing else:
scheduler.service does, through store/leases.py. What rows know is checked here (archive uploaded); what catalogs know was checked by
api/submission.py before. A batch is a handful of statements however long it is. Reading jobs is store/job_reads.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from domain.jobs import Shape
from domain.states import JobEvent, JobState, JobTarget, advance
from store import job_reads
from store.errors import InvalidError, NotFoundError, StaleError
from store.job_reads import ClassAnswer, JobView
from store.tables import Blob, Event, Job, JobClass

CLASS_ID_CHARACTERS = 32

_job = Job.__table__  # type: ignore[attr-defined]
_class = JobClass.__table__  # type: ignore[attr-defined]
_event = Event.__table__  # type: ignore[attr-defined]
_blob = Blob.__table__  # type: ignore[attr-defined]

_insert_class = {"sqlite": sqlite.insert(_class).on_conflict_do_nothing(), "postgresql": postgresql.insert(_class).on_conflict_do_nothing()}
_insert_job = insert(_job)
_insert_event = insert(_event)
_answers = select(
    _class.c.id, _class.c.reason_code, _class.c.reason_data, _class.c.reason_unblocks_when, _class.c.forecast_start_ms,
    _class.c.not_before_ms, _class.c.answered_at_ms,
).where(_class.c.id.in_(bindparam("ids", expanding=True)))  # fmt: skip
_answer_one = select(*_answers.selected_columns).where(_class.c.id == bindparam("one"))
_archives = select(_blob.c.sha256).where(_blob.c.tenant_id == bindparam("tenant"), _blob.c.sha256.in_(bindparam("wanted", expanding=True)))
_move = (
    update(_job)
    .where(_job.c.id == bindparam("job"), _job.c.version == bindparam("seen"))
    .values(target=bindparam("new_target"), state=bindparam("new_state"), ended_at_ms=bindparam("ended"), version=_job.c.version + 1)
)


def canonical(value: object) -> str:
    """Return the one JSON text of `value` that rows and hashes use: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class ClassKey:
    """What makes two jobs alike for the scheduler. `id` is a hash of the other fields."""

    id: str
    tenant_id: str
    project_id: str
    shape: str
    limit_ms: int
    priority: int


def class_key(tenant_id: str, project_id: str, shape: Shape, *, limit_ms: int, priority: int) -> ClassKey:
    """Return the class of jobs of `shape`; equal arguments give equal identifiers, in every process and release."""
    text = canonical(asdict(shape))
    digest = hashlib.sha256(canonical([tenant_id, project_id, text, limit_ms, priority]).encode()).hexdigest()
    return ClassKey(digest[:CLASS_ID_CHARACTERS], tenant_id, project_id, text, limit_ms, priority)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert, checked. Lists and maps are given as values and kept as JSON text."""

    id: str
    job_class: ClassKey
    shape: Shape
    name: str | None
    project: str
    tier: str
    entrypoint: Sequence[str]
    environment: Mapping[str, str]
    archive_sha256: str | None
    requirements: str | None
    maximum_attempts: int


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who submits: identifiers for rows, names for answers."""

    tenant_id: str
    tenant: str
    user_id: str
    user: str


@dataclass(frozen=True, slots=True)
class SubmitJobs:
    """Accept all jobs or, by raising InvalidError, none. `jobs` are in the order of the request."""

    submitter: Submitter
    jobs: Sequence[NewJob]
    now_ms: int

    def execute(self, connection: Connection, /) -> list[JobView]:
        """Return the accepted jobs with the newest answers known for their classes."""
        self._check_archives(connection)
        answers = self._classes(connection)
        connection.execute(_insert_job, [self._row(job) for job in self.jobs])
        connection.execute(_insert_event, [self._event(job) for job in self.jobs])
        return [self._view(job, answers[job.job_class.id]) for job in self.jobs]

    def _check_archives(self, connection: Connection) -> None:
        wanted = {job.archive_sha256 for job in self.jobs if job.archive_sha256 is not None}
        if not wanted:
            return
        found = set(connection.execute(_archives, {"tenant": self.submitter.tenant_id, "wanted": sorted(wanted)}).scalars())
        for position, job in enumerate(self.jobs):
            if job.archive_sha256 is not None and job.archive_sha256 not in found:
                field = "archive_sha256" if len(self.jobs) == 1 else f"jobs[{position}].archive_sha256"
                raise InvalidError("archive_not_found", "the archive was not uploaded; PUT it to /v1/archives/{sha256} first", field=field)

    def _classes(self, connection: Connection) -> dict[str, ClassAnswer]:
        keys = {job.job_class.id: job.job_class for job in self.jobs}
        if len(keys) == 1:
            rows = connection.execute(_answer_one, {"one": next(iter(keys))}).all()
        else:
            rows = connection.execute(_answers, {"ids": list(keys)}).all()
        answers = {row[0]: ClassAnswer(*row[1:]) for row in rows}
        missing = [key for key in keys.values() if key.id not in answers]
        if missing:
            connection.execute(_insert_class[connection.dialect.name], [asdict(key) for key in missing])
            answers |= {key.id: ClassAnswer() for key in missing}
        return answers

    def _row(self, job: NewJob) -> dict[str, object]:
        shape, key = job.shape, job.job_class
        return {
            "id": job.id,
            "tenant_id": self.submitter.tenant_id,
            "project_id": key.project_id,
            "user_id": self.submitter.user_id,
            "class_id": key.id,
            "name": job.name,
            "state": JobState.QUEUED.value,
            "target": JobTarget.RUN.value,
            "version": 0,
            "priority": key.priority,
            "tier": job.tier,
            "flavors": canonical(shape.flavors),
            "replicas": shape.replicas,
            "slices_per_replica": shape.slices_per_replica,
            "milli_gpu_per_slice": shape.milli_gpu_per_slice,
            "cpu_milli_per_replica": shape.cpu_milli_per_replica,
            "memory_bytes_per_replica": shape.memory_bytes_per_replica,
            "limit_ms": key.limit_ms,
            "entrypoint": canonical(job.entrypoint),
            "environment": canonical(job.environment),
            "archive_sha256": job.archive_sha256,
            "requirements": job.requirements,
            "maximum_attempts": job.maximum_attempts,
            "attempt": 0,
            "submitted_at_ms": self.now_ms,
        }

    def _event(self, job: NewJob) -> dict[str, object]:
        return {"at_ms": self.now_ms, "kind": "job_submitted", "tenant_id": self.submitter.tenant_id, "job_id": job.id, "data": "{}"}

    def _view(self, job: NewJob, answer: ClassAnswer) -> JobView:
        shape, key = job.shape, job.job_class
        return JobView(
            id=job.id,
            tenant_id=self.submitter.tenant_id,
            tenant=self.submitter.tenant,
            project=job.project,
            user=self.submitter.user,
            name=job.name,
            state=JobState.QUEUED.value,
            target=JobTarget.RUN.value,
            entrypoint=job.entrypoint,
            replicas=shape.replicas,
            slices_per_replica=shape.slices_per_replica,
            flavors=shape.flavors,
            cpu_milli_per_replica=shape.cpu_milli_per_replica,
            memory_bytes_per_replica=shape.memory_bytes_per_replica,
            limit_ms=key.limit_ms,
            tier=job.tier,
            priority=key.priority,
            attempt=0,
            maximum_attempts=job.maximum_attempts,
            submitted_at_ms=self.now_ms,
            answer=answer,
        )


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Ask for the end of a job. One that holds no slices ends at once; the scheduler stops the others. Again changes nothing.

    `tenant_id` narrows to jobs of that tenant.
    """

    job_id: str
    tenant_id: str | None
    user_id: str
    now_ms: int

    def execute(self, connection: Connection, /) -> JobView:
        """Return the job as it is now; NotFoundError for a job that is not there or is another tenant's."""
        guard = select(_job.c.state, _job.c.target, _job.c.version, _job.c.tenant_id).where(_job.c.id == self.job_id)
        row = connection.execute(guard).first()
        if row is None or self.tenant_id not in (None, row.tenant_id):
            raise NotFoundError("job_not_found", f"there is no job {self.job_id!r}", field="job")
        state = JobState(row.state)
        if not state.is_terminal and row.target != JobTarget.CANCEL:
            self._cancel(connection, state, version=row.version, tenant_id=row.tenant_id)
        return job_reads.JobById(self.job_id).fetch(connection)

    def _cancel(self, connection: Connection, state: JobState, *, version: int, tenant_id: str) -> None:
        is_idle = state in (JobState.QUEUED, JobState.HELD)
        new_state = advance(state, JobEvent.CANCEL_DONE) if is_idle else state
        values = {
            "job": self.job_id,
            "seen": version,
            "new_target": JobTarget.CANCEL.value,
            "new_state": new_state.value,
            "ended": self.now_ms if is_idle else None,
        }
        if connection.execute(_move, values).rowcount != 1:
            raise StaleError("job_moved", "the job changed while it was being cancelled; try again")
        kinds = ["job_cancel_requested", "job_cancelled"] if is_idle else ["job_cancel_requested"]
        data = canonical({"user_id": self.user_id})
        rows = [{"at_ms": self.now_ms, "kind": kind, "tenant_id": tenant_id, "job_id": self.job_id, "data": data} for kind in kinds]
        connection.execute(_insert_event, rows)
