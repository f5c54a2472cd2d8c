"""The commands of an engineer: submit, watch, understand, estimate, cancel.

Each fetches and hands the answer to the session's output; a returned number is the exit code. Does not own what a job asks for (asking.py),
the live line (watching.py) or printing.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from terrace import units
from terrace.cli import asking, exits, watching
from terrace.cli.exits import ExitCode
from terrace.cli.session import Session, command
from terrace.models.jobs import JobDetail, JobState
from terrace.sdk.errors import ApiError, InputError, WaitTimeoutError

JOBS_SHOWN = 20

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")]
Tenant = Annotated[str | None, typer.Option(help="One tenant; operators and finance only.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `terrace` command."""
    panel = "Jobs"
    command(app, "submit", panel=panel)(submit)
    command(app, "jobs", panel=panel)(jobs)
    command(app, "job", panel=panel)(job)
    command(app, "why", panel=panel)(why)
    command(app, "logs", panel=panel)(logs)
    command(app, "wait", panel=panel)(wait)
    command(app, "cancel", panel=panel)(cancel)
    command(app, "estimate", panel=panel)(estimate)
    command(app, "events", panel=panel)(events)


def submit(
    session: Session,
    job: asking.JobOptions,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show how it stands, and its output, until it ends; exit 1 unless it succeeds.")
    ] = False,
) -> int | None:
    """Submit a job, with the current directory: terrace submit --gpus 1 -- python train.py"""
    wanted = asking.asked(job)
    accepted = session.client.submit_spec(wanted.spec, working_directory=wanted.working_directory, on_upload=watching.Upload())
    output = session.output
    if not watch:
        output.submitted(accepted)
        return None
    if not output.is_for_people:
        ended = session.client.wait(accepted.id)
        output.job(ended)
        return _outcome([ended])
    sys.stderr.write(f"{accepted.id}\n")
    try:
        ended = watching.follow(session.client, accepted.id)
    except KeyboardInterrupt:
        sys.stderr.write(f"terrace: interrupted: {accepted.id} goes on; `terrace cancel {accepted.id}` ends it\n")
        return ExitCode.INTERRUPTED
    output.ended([ended])
    return _outcome([ended])


def jobs(
    session: Session,
    state: Annotated[list[JobState] | None, typer.Option(help="Only jobs in this state; repeat for more.")] = None,
    project: Annotated[str | None, typer.Option(help="Only jobs of this project.")] = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = JOBS_SHOWN,
    is_all: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """List jobs, newest first."""
    states = [item.value for item in state or []]
    session.output.jobs(session.client.jobs(states=states, project=project, tenant=tenant, limit=None if is_all else limit))


def job(session: Session, job_id: JobId) -> None:
    """Show a job with its attempts and the devices that it held."""
    session.output.job(session.client.job(job_id))


def why(session: Session, job_id: JobId) -> None:
    """Say why a job waits, what would let it start, and when that should be."""
    session.output.why(session.client.why(job_id))


def logs(
    session: Session,
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends, attempt after attempt.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="One attempt. (default: the newest)")] = None,
) -> None:
    """Print what a job wrote."""
    session.output.logs(session.client.logs(job_id, attempt=attempt, follow=follow))


def wait(
    session: Session,
    job_ids: JobIds,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="Give up after this long; the jobs go on.")] = None,
) -> int:
    """Wait until jobs have ended; exit 1 unless all of them succeed."""
    seconds = None if timeout is None else units.duration_seconds("timeout", timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    line = watching.StatusLine() if session.output.is_for_people else None
    ended = []
    for job_id in job_ids:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended.append(_wait(session, job_id, left, line))
    session.output.ended(ended)
    return _outcome(ended)


def _wait(session: Session, job_id: str, seconds: float | None, line: watching.StatusLine | None) -> JobDetail:
    try:
        if line is None:
            return session.client.wait(job_id, timeout_seconds=seconds)
        with watching.Watch(session.client, job_id, line):
            return session.client.wait(job_id, timeout_seconds=seconds)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(f"{job_id} had not ended in time; it goes on") from error


def cancel(session: Session, job_ids: JobIds) -> int:
    """Ask jobs to end; doing it again changes nothing."""
    asked, status = [], ExitCode.OK
    for job_id in job_ids:
        try:
            asked.append(session.client.cancel(job_id))
        except ApiError as error:  # the others are asked all the same
            status = exits.explain(error)
    session.output.cancelled(asked)
    return status


def estimate(session: Session, job: asking.JobOptions) -> None:
    """Say what would happen to a job, and what it would cost at most. Nothing is kept or sent but the options."""
    session.output.estimate(session.client.estimate(asking.asked(job, is_sent=False).spec))


def events(
    session: Session,
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job. (default: the whole tenant)")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
) -> None:
    """Print what happened, oldest first."""
    if follow and limit is not None:
        raise InputError("limit", "does not go with --follow")
    session.output.events(session.client.events(job_id, follow=follow, limit=limit))


def _outcome(ended: list[JobDetail]) -> ExitCode:
    return ExitCode.OK if all(job.state is JobState.SUCCEEDED for job in ended) else ExitCode.ENDED_BADLY
