"""Questions about jobs: one, a page of them, their attempts and slices, and how many are open.

Owns no writes. `JobView` is what an answer about a job is made from; store/jobs.py makes the same value for a job that was just
accepted, so that a submit reads nothing back. Called by api (routes of jobs) and console.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, literal, or_, select

from domain.states import TERMINAL_STATES, JobState
from scheduler.decision.where import ANYWHERE, Where
from store import shapes
from store.errors import NotFoundError
from store.tables import Attempt, Device, Job, JobClass, LeaseSlice, Node, Project, Tenant, User

OPEN_STATES = tuple(sorted(state.value for state in JobState if state not in TERMINAL_STATES))

_job = Job.__table__  # type: ignore[attr-defined]
_class = JobClass.__table__  # type: ignore[attr-defined]
_attempt = Attempt.__table__  # type: ignore[attr-defined]
_slice = LeaseSlice.__table__  # type: ignore[attr-defined]
_tenant = Tenant.__table__  # type: ignore[attr-defined]
_project = Project.__table__  # type: ignore[attr-defined]
_user = User.__table__  # type: ignore[attr-defined]
_node = Node.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """The scheduler's newest answer for a class of jobs; all None before the first."""

    reason_code: str | None = None
    reason_data: str | None = None
    reason_unblocks_when: str | None = None
    forecast_start_ms: int | None = None
    not_before_ms: int | None = None
    answered_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job with the names that its row points at."""

    id: str
    tenant_id: str
    tenant: str
    project: str
    user: str
    name: str | None
    state: str
    target: str
    entrypoint: Sequence[str]
    replicas: int
    slices_per_replica: int
    flavors: Sequence[str]
    cpu_milli_per_replica: int
    memory_bytes_per_replica: int
    limit_ms: int
    tier: str
    priority: int
    attempt: int
    maximum_attempts: int
    submitted_at_ms: int
    answer: ClassAnswer
    sites: Sequence[str] = ()
    where: Where = ANYWHERE
    seq: int = 0  # order of arrival; not known yet to a job that was just accepted
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    exit_code: int | None = None
    failure_class: str | None = None
    message: str | None = None
    progress: str | None = None  # JSON object


@dataclass(frozen=True, slots=True)
class SliceView:
    """A slice that a lease holds or held."""

    replica: int
    node: str
    device_index: int
    device_uuid: str
    milli_gpu: int
    is_simulated: bool


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One run of a job."""

    number: int
    lease_id: str
    created_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    outcome: str | None
    exit_code: int | None
    failure_class: str | None
    message: str | None
    slices: tuple[SliceView, ...]


_OWN_COLUMNS = (
    "id", "tenant_id", "name", "state", "target", "replicas", "slices_per_replica", "cpu_milli_per_replica", "memory_bytes_per_replica",
    "limit_ms", "tier", "priority", "attempt", "maximum_attempts", "submitted_at_ms", "seq", "started_at_ms", "ended_at_ms", "exit_code",
    "failure_class", "message", "progress",
)  # fmt: skip
_ANSWER_COLUMNS = tuple(ClassAnswer.__dataclass_fields__)
_jobs = select(
    *(_job.c[name] for name in _OWN_COLUMNS),
    *(_class.c[name] for name in _ANSWER_COLUMNS),
    _job.c.entrypoint,
    _job.c.flavors,
    _class.c.shape,
    _class.c.place,
    _tenant.c.name.label("tenant"),
    _project.c.name.label("project"),
    _user.c.name.label("user"),
).select_from(
    _job.join(_class, _class.c.id == _job.c.class_id)
    .join(_tenant, _tenant.c.id == _job.c.tenant_id)
    .join(_project, _project.c.id == _job.c.project_id)
    .join(_user, _user.c.id == _job.c.user_id)
)


def _view(row: Sequence[Any]) -> JobView:
    own = len(_OWN_COLUMNS)
    columns = dict(zip(_OWN_COLUMNS, row[:own], strict=True))
    answer = ClassAnswer(*row[own : own + len(_ANSWER_COLUMNS)])
    entrypoint, flavors, shape, place, tenant, project, user = row[own + len(_ANSWER_COLUMNS) :]
    return JobView(
        **columns,
        entrypoint=json.loads(str(entrypoint)),
        flavors=json.loads(str(flavors)),
        sites=shapes.shape_of(shape).sites,
        where=shapes.place_of(place),
        tenant=str(tenant),
        project=str(project),
        user=str(user),
        answer=answer,
    )


@dataclass(frozen=True, slots=True)
class JobById:
    """One job; `tenant_id` narrows to jobs of that tenant."""

    id: str
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> JobView:
        """Return the job; NotFoundError when it is not there or is another tenant's."""
        statement = _jobs.where(_job.c.id == self.id)
        if self.tenant_id is not None:
            statement = statement.where(_job.c.tenant_id == self.tenant_id)
        row = connection.execute(statement).first()
        if row is None:
            raise NotFoundError("job_not_found", f"there is no job {self.id!r}", field="job")
        return _view(row)


@dataclass(frozen=True, slots=True)
class JobWithAttempts:
    """One job with its attempts and their slices."""

    id: str
    tenant_id: str | None = None

    def fetch(self, connection: Connection, /) -> tuple[JobView, tuple[AttemptView, ...]]:
        """Return (job, attempts in order); NotFoundError."""
        job = JobById(self.id, self.tenant_id).fetch(connection)
        columns = [_attempt.c[name] for name in AttemptView.__dataclass_fields__ if name != "slices"]
        attempts: Sequence[Any] = connection.execute(select(*columns).where(_attempt.c.job_id == self.id).order_by(_attempt.c.number)).all()
        slices = self._slices(connection, [row.lease_id for row in attempts])
        return job, tuple(AttemptView(*[*row, tuple(slices.get(row.lease_id, ()))]) for row in attempts)

    @staticmethod
    def _slices(connection: Connection, lease_ids: Sequence[str]) -> dict[str, list[SliceView]]:
        columns = (_slice.c.lease_id, _slice.c.replica, _node.c.name, _device.c.device_index, _device.c.id, _slice.c.milli_gpu)
        statement = (
            select(*columns, _device.c.is_simulated)
            .select_from(_slice.join(_node, _node.c.id == _slice.c.node_id).join(_device, _device.c.id == _slice.c.device_id))
            .where(_slice.c.lease_id.in_(lease_ids))
            .order_by(_slice.c.lease_id, _slice.c.ordinal)
        )
        found: dict[str, list[SliceView]] = {}
        for lease_id, *rest in connection.execute(statement):
            found.setdefault(lease_id, []).append(SliceView(*rest))
        return found


@dataclass(frozen=True, slots=True)
class JobsPage:
    """Jobs, newest first, that came before `before_seq`; the other fields narrow when they are set."""

    limit: int
    before_seq: int | None = None
    tenant_id: str | None = None
    tenant: str | None = None
    project: str | None = None
    states: Sequence[str] = ()

    def fetch(self, connection: Connection, /) -> tuple[JobView, ...]:
        """Return at most `limit` jobs."""
        conditions = [
            _job.c.seq < self.before_seq if self.before_seq is not None else None,
            _job.c.tenant_id == self.tenant_id if self.tenant_id is not None else None,
            _tenant.c.name == self.tenant if self.tenant is not None else None,
            _project.c.name == self.project if self.project is not None else None,
            _job.c.state.in_(self.states) if self.states else None,
        ]
        statement = _jobs.where(*(item for item in conditions if item is not None)).order_by(_job.c.seq.desc()).limit(self.limit)
        return tuple(_view(row) for row in connection.execute(statement))


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """How many jobs of a tenant are not in a terminal state, counted up to `maximum`."""

    tenant_id: str
    maximum: int

    def fetch(self, connection: Connection, /) -> int:
        """Return the count, at most `maximum`."""
        wanted = and_(_job.c.tenant_id == self.tenant_id, or_(*(_job.c.state == state for state in OPEN_STATES)))
        some = select(literal(1)).select_from(_job).where(wanted).limit(self.maximum).subquery()
        return int(connection.execute(select(func.count()).select_from(some)).scalar_one())
