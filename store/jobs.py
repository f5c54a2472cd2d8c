"""Submitting and cancelling jobs: the hot path of the intake.

Owns the insert of job rows and of their classes, and the change of a job's target. It starts, ends and moves nothing else:
scheduler.service does, through store/leases.py. What rows know is checked here (archive uploaded); what catalogs know was checked by
api/submission.py before. A batch is a handful of statements however long it is. Reading jobs is store/job_reads.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from sqlalchemy import Connection, bindparam, select, update

from domain.jobs import Shape
from domain.states import JobEvent, JobState, JobTarget, advance
from scheduler.decision.where import ANYWHERE, Where
from store import hot, job_reads, shapes
from store.errors import InvalidError, NotFoundError, StaleError
from store.job_reads import ClassAnswer, JobView
from store.tables import Blob, Event, Job, JobClass

CLASS_ID_CHARACTERS = 32
CLASS_KEYS_KEPT = 4_096  # most submits repeat a class

_job = Job.__table__  # type: ignore[attr-defined]
_class = JobClass.__table__  # type: ignore[attr-defined]
_event = Event.__table__  # type: ignore[attr-defined]
_blob = Blob.__table__  # type: ignore[attr-defined]

_JOB_COLUMNS = (
    "id",
    "tenant_id", "project_id", "user_id", "class_id",
    "name",
    "state", "target", "version", "priority",
    "tier",
    "flavors", "replicas", "slices_per_replica", "milli_gpu_per_slice", "cpu_milli_per_replica", "memory_bytes_per_replica", "limit_ms",
    "entrypoint", "environment", "archive_sha256", "requirements", "maximum_attempts", "attempt", "submitted_at_ms",
    "was_preempted", "failed_attempts",
)  # fmt: skip
_CLASS_COLUMNS = ("id", "tenant_id", "project_id", "shape", "limit_ms", "priority", "user_id", "tier", "place")
_insert_class = hot.insert_into(_class, _CLASS_COLUMNS, is_repeatable=True)
_insert_job = hot.insert_into(_job, _JOB_COLUMNS)
_insert_event = hot.insert_into(_event, ("at_ms", "kind", "tenant_id", "job_id", "data"))
_ANSWER_COLUMNS = tuple(ClassAnswer.__dataclass_fields__)
_answer = hot.HotStatement(("id",), lambda _: select(*(_class.c[name] for name in _ANSWER_COLUMNS)).where(_class.c.id == bindparam("id")))
_wanted = (_blob.c.tenant_id == bindparam("tenant"), _blob.c.sha256.in_(bindparam("wanted", expanding=True)))
# Held until the commit, so that store/archives.py does not forget an archive that a job on its way names.
_archives = select(_blob.c.sha256).where(*_wanted).order_by(_blob.c.sha256).with_for_update(read=True, key_share=True)
_move = (
    update(_job)
    .where(_job.c.id == bindparam("job"), _job.c.version == bindparam("seen"))
    .values(target=bindparam("new_target"), state=bindparam("new_state"), ended_at_ms=bindparam("ended"), version=_job.c.version + 1)
)


canonical: Callable[[object], str] = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""Return the one JSON text of a value that rows and hashes use: sorted keys, no spaces."""


@dataclass(frozen=True, slots=True)
class ClassKey:
    """What makes two jobs alike for the scheduler. `id` is a hash of the other fields."""

    id: str
    tenant_id: str
    project_id: str
    shape: str
    limit_ms: int
    priority: int
    user_id: str | None
    tier: str
    place: str


@lru_cache(maxsize=CLASS_KEYS_KEPT)
def class_key(
    tenant_id: str,
    project_id: str,
    shape: Shape,
    *,
    limit_ms: int,
    priority: int,
    user_id: str | None = None,
    tier: str = "standard",
    where: Where = ANYWHERE,
) -> ClassKey:
    """Return the class of jobs of `shape`; equal arguments give equal identifiers, in every process and release."""
    text, place = canonical(asdict(shape)), shapes.place_text(where)
    fields = (tenant_id, project_id, text, limit_ms, priority, user_id, tier, place)
    digest = hashlib.sha256(canonical(fields).encode()).hexdigest()
    return ClassKey(digest[:CLASS_ID_CHARACTERS], *fields)


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
    """Accept all jobs or, by raising InvalidError, none. `jobs` are in the order of the request; a batch's refusal names the position."""

    submitter: Submitter
    jobs: Sequence[NewJob]
    now_ms: int
    is_batch: bool = False

    def execute(self, connection: Connection, /) -> list[JobView]:
        """Return the accepted jobs with the newest answers known for their classes."""
        self._check_archives(connection)
        keys = {job.job_class.id: job.job_class for job in self.jobs}
        # In order, so that two batches on PostgreSQL never wait for one another's new classes.
        answers = {class_id: self._answer(connection, keys[class_id]) for class_id in sorted(keys)}
        _insert_job.run_many(connection, list(self._rows()))
        event = (self.now_ms, "job_submitted", self.submitter.tenant_id)
        _insert_event.run_many(connection, [(*event, job.id, "{}") for job in self.jobs])
        return [self._view(job, answers[job.job_class.id]) for job in self.jobs]

    def _check_archives(self, connection: Connection) -> None:
        wanted = {job.archive_sha256 for job in self.jobs if job.archive_sha256 is not None}
        if not wanted:
            return
        found = set(connection.execute(_archives, {"tenant": self.submitter.tenant_id, "wanted": sorted(wanted)}).scalars())
        for position, job in enumerate(self.jobs):
            if job.archive_sha256 is not None and job.archive_sha256 not in found:
                field = f"jobs[{position}].archive_sha256" if self.is_batch else "archive_sha256"
                message = f"{field}: was not uploaded; PUT it to /v1/archives/{{sha256}} first"
                raise InvalidError("archive_not_uploaded", message, field=field)

    @staticmethod
    def _answer(connection: Connection, key: ClassKey) -> ClassAnswer:
        row = _answer.run(connection, (key.id,)).fetchone()
        if row is not None:
            return ClassAnswer(*row)
        _insert_class.run(connection, tuple(getattr(key, name) for name in _CLASS_COLUMNS))
        return ClassAnswer()

    def _rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the rows in the order of `_JOB_COLUMNS`. What jobs of one class share is made once: a batch is mostly alike."""
        submitter = self.submitter
        state = (JobState.QUEUED.value, JobTarget.RUN.value, 0)
        shared: dict[str, tuple[tuple[object, ...], tuple[object, ...]]] = {}
        for job in self.jobs:
            shape, key = job.shape, job.job_class
            if key.id not in shared:
                owner: tuple[object, ...] = (submitter.tenant_id, key.project_id, submitter.user_id, key.id)
                asked: tuple[object, ...] = (
                    canonical(shape.flavors), shape.replicas, shape.slices_per_replica, shape.milli_gpu_per_slice,
                    shape.cpu_milli_per_replica, shape.memory_bytes_per_replica, key.limit_ms,
                )  # fmt: skip
                shared[key.id] = (owner, asked)
            owner, asked = shared[key.id]
            environment = canonical(job.environment) if job.environment else "{}"
            own = (canonical(job.entrypoint), environment, job.archive_sha256, job.requirements, job.maximum_attempts)
            yield (job.id, *owner, job.name, *state, key.priority, job.tier, *asked, *own, 0, self.now_ms, False, 0)

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
            sites=shape.sites,
            where=shapes.place_of(key.place),
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
        # Locked, so that a start or an end either came before and is seen, or comes after and finds the new version.
        row = connection.execute(guard.with_for_update(key_share=True)).first()
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
        _insert_event.run_many(connection, [(self.now_ms, kind, tenant_id, self.job_id, data) for kind in kinds])
