"""Jobs: submit (one or a batch), list, read, cancel.

A submit is one command and reads nothing back. Handlers on the hot path answer bytes that are already JSON; the declared response models
are what tests hold them against. Logs and events of jobs are in routes/streams.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from api import answers, clock, hot_bodies, pages, problem_codes, replays, routing, submission
from api.catalog import Catalogs
from api.permissions import Needs
from api.problems import TooManyRequestsError
from api.routes.tenants import check_own
from api.settings import ApiSettings
from store.catalog import FleetCatalog, TenantCatalog
from store.errors import InvalidError, RefusalError
from store.identity import Principal
from store.job_reads import JobsPage, JobView, JobWithAttempts
from store.jobs import CancelJob, NewJob, SubmitJobs, Submitter
from terrace.models.common import Page
from terrace.models.jobs import JobAnswer, JobBatch, JobBatchAnswer, JobDetail, JobSpec, JobState

router = routing.router("/v1/jobs", "jobs")

QUEUE_FULL_RETRY_SECONDS = 30

Reads = Annotated[Principal, Depends(Needs("jobs:read"))]
_submits = Needs("jobs:write")
_REFUSALS = problem_codes.responses(*problem_codes.SUBMISSION, "archive_not_uploaded", "too_many_open_jobs", *problem_codes.CREATION)
Cancels = Annotated[Principal, Depends(Needs("jobs:write", "jobs:cancel_any"))]


@router.post("", status_code=201, response_model=JobAnswer, responses=_REFUSALS, openapi_extra=hot_bodies.openapi(JobSpec, _submits))
async def submit_job(request: Request) -> Response:
    """Accept a job. 201 means that it is durable; it carries the newest answer known for its class."""
    principal, key, sent = await hot_bodies.read(request, JobSpec, _submits)
    return await _submit(request, principal, key, [sent], answer=_one, is_batch=False)


@router.post(
    "/batch", status_code=201, response_model=JobBatchAnswer, responses=_REFUSALS, openapi_extra=hot_bodies.openapi(JobBatch, _submits)
)
async def submit_batch(request: Request) -> Response:
    """Accept all jobs of a batch or none, in one durable step. A refusal names the job by its position."""
    principal, key, sent = await hot_bodies.read(request, JobBatch, _submits)
    return await _submit(request, principal, key, sent.jobs, answer=_many, is_batch=True)


@router.get("", response_model=Page[JobAnswer], responses=problem_codes.responses("invalid_cursor", "tenant_not_found"))
async def list_jobs(
    request: Request,
    principal: Reads,
    state: Annotated[list[JobState] | None, Query(description="Repeat to ask for several states.")] = None,
    project: Annotated[str | None, Query(max_length=63)] = None,
    tenant: Annotated[str | None, Query(max_length=63)] = None,
    cursor: pages.Cursor = None,
    limit: pages.Limit = pages.LIMIT_DEFAULT,
) -> Response:
    """List jobs, newest first: the own tenant's, or everybody's for operators and finance."""
    if tenant is not None:
        check_own(principal, tenant)
    query = JobsPage(
        limit,
        pages.decode_number(cursor),
        tenant_id=principal.tenant_id,
        tenant=tenant,
        project=project,
        states=[item.value for item in state or []],
    )
    found = await request.app.state.store.read(query)
    cursor_after = pages.next_cursor(found, limit, lambda item: item.seq)
    return answers.response({"items": [answers.job(item) for item in found], "next_cursor": cursor_after})


@router.get("/{job_id}", response_model=JobDetail, responses=problem_codes.responses("job_not_found"))
async def read_job(request: Request, principal: Reads, job_id: str) -> Response:
    """Return a job with its attempts, why it waits, and when it is expected to start."""
    view, attempts = await request.app.state.store.read(JobWithAttempts(job_id, principal.tenant_id))
    return answers.response(answers.job_detail(view, attempts))


@router.post("/{job_id}/cancel", response_model=JobAnswer, responses=problem_codes.responses("job_not_found", "job_moved"))
async def cancel_job(request: Request, principal: Cancels, job_id: str) -> Response:
    """Cancel a job: at once when it waits, otherwise after its processes got notice and grace. Doing it again changes nothing."""
    command = CancelJob(job_id, principal.tenant_id, principal.user_id, clock.now_ms())
    return answers.response(answers.job(await request.app.state.store.run(command)))


async def _submit(
    request: Request,
    principal: Principal,
    key: str | None,
    specs: Sequence[JobSpec],
    *,
    answer: Callable[[list[JobView]], Mapping[str, Any]],
    is_batch: bool,
) -> Response:
    try:
        command = await _command(request, principal, specs, is_batch=is_batch)
    except RefusalError as refusal:
        return await replays.refused(request, principal, key=key, refusal=refusal)
    try:
        response = await replays.create(request, principal, key=key, command=command, answer=answer)
    finally:
        request.app.state.catalogs.settle_jobs(command.submitter.tenant_id, len(specs))
    if replays.REPLAYED not in response.headers:
        request.app.state.measures.jobs.inc(len(specs))
    return response


async def _command(request: Request, principal: Principal, specs: Sequence[JobSpec], *, is_batch: bool) -> SubmitJobs:
    catalogs: Catalogs = request.app.state.catalogs
    tenant_id, tenant = principal.tenant_id, principal.tenant
    if tenant_id is None or tenant is None:
        raise InvalidError("no_tenant", "this key belongs to no tenant, so it cannot submit jobs")
    settings: ApiSettings = request.app.state.settings
    terms = submission.Terms(tenant_id, principal.user_id, gangs_span_nodes=settings.gangs_span_nodes)
    jobs = await prepare(catalogs, specs, terms, is_batch=is_batch)
    maximum = settings.open_jobs_maximum
    if not await catalogs.reserve_jobs(tenant_id, len(jobs)):
        message = f"the tenant may have at most open_jobs_maximum = {maximum} jobs that have not ended"
        raise TooManyRequestsError("too_many_open_jobs", message, limit=maximum, retry_after_seconds=QUEUE_FULL_RETRY_SECONDS)
    submitter = Submitter(tenant_id, tenant, principal.user_id, principal.user)
    return SubmitJobs(submitter, jobs, clock.now_ms(), is_batch)


async def prepare(catalogs: Catalogs, specs: Sequence[JobSpec], terms: submission.Terms, *, is_batch: bool) -> list[NewJob]:
    """Return the jobs to store; a refusal is decided on catalogs read now, an acceptance may rest on slightly older ones."""

    def checked(fleet: FleetCatalog, tenant: TenantCatalog) -> list[NewJob]:
        return submission.prepare(specs, fleet, tenant, terms, is_batch=is_batch, new_id=clock.new_id)

    try:
        return checked(await catalogs.fleet(), await catalogs.tenant(terms.tenant_id))
    except InvalidError:
        return checked(await catalogs.fleet(is_fresh=True), await catalogs.tenant(terms.tenant_id, is_fresh=True))


def _one(accepted: list[JobView]) -> Mapping[str, Any]:
    return answers.job(accepted[0])


def _many(accepted: list[JobView]) -> Mapping[str, Any]:
    return {"jobs": [answers.job(item) for item in accepted]}
