"""What an engineer does: submit, watch, understand, cancel, and see what it costs.

Owns one method per verb, each of which the command line calls too. Does not own operators' verbs (operations.py) or HTTP (transport.py).
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from terrace.models.fleet import FlavorAnswer, QuotaAnswer
from terrace.models.jobs import (
    ArchiveAnswer,
    EstimateAnswer,
    EventAnswer,
    JobAnswer,
    JobBatch,
    JobBatchAnswer,
    JobDetail,
    JobSpec,
    JobState,
    LogEnd,
    LogPiece,
)
from terrace.models.people import Identity
from terrace.models.usage import UsageReport
from terrace.sdk import packing, streams
from terrace.sdk.errors import ApiError, UnreachableError, WaitTimeoutError
from terrace.sdk.packing import Archive
from terrace.sdk.transport import CONNECT_SECONDS_MAXIMUM, UPLOAD_SECONDS_MAXIMUM, Transport, path_of

JOBS_DEFAULT = 100
POLL_SECONDS = 1.0
SILENCE_SECONDS_MAXIMUM = 120.0  # how long `wait` outlasts a service that does not answer, as while it restarts
UPLOAD_BLOCK_BYTES = 256 << 10
ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

Progress = Callable[[int, int], object]


class JobVerbs:
    """Mixed into `Client`. Every method raises ApiError when refused and UnreachableError when not answered."""

    _wire: Transport

    def me(self) -> Identity:
        """Return who the key speaks for."""
        return self._wire.get("/v1/me", Identity)

    def submit(self, entrypoint: Sequence[str], *, working_directory: Path | str | None = None, **fields: Any) -> JobAnswer:
        """Submit one job and return it as accepted; that means durable. `fields` are those of `terrace.models.jobs.JobSpec`.

        `working_directory` is packed and sent unless the service has it. Raises pydantic's ValidationError for malformed fields.
        """
        spec = JobSpec.model_validate({"entrypoint": list(entrypoint), **fields})
        return self.submit_spec(spec, working_directory=working_directory)

    def submit_spec(self, spec: JobSpec, *, working_directory: Path | str | None = None, on_upload: Progress | None = None) -> JobAnswer:
        """Submit a job from its specification; `on_upload(sent, total)` hears of an upload in bytes."""
        if working_directory is not None:
            sha256 = self.upload(working_directory, on_upload=on_upload)
            spec = JobSpec.model_validate(spec.model_dump(exclude_unset=True) | {"archive_sha256": sha256})
        return self._wire.create("/v1/jobs", spec, JobAnswer)

    def submit_batch(self, specs: Iterable[JobSpec]) -> list[JobAnswer]:
        """Submit several jobs in one durable step: all are accepted or none is."""
        return self._wire.create("/v1/jobs/batch", JobBatch(jobs=list(specs)), JobBatchAnswer).jobs

    def upload(self, directory: Path | str, *, on_upload: Progress | None = None) -> str:
        """Pack a directory, send it unless the service has it, and return its SHA-256; PackingError for what cannot be sent."""
        with packing.packed(Path(directory)) as archive:
            if not self.has_archive(archive.sha256):
                self._send_archive(archive, on_upload)
            return archive.sha256

    def has_archive(self, sha256: str) -> bool:
        """Tell whether the service has this archive of the caller's tenant."""
        try:
            self._wire.send("HEAD", path_of("v1", "archives", sha256))
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def _send_archive(self, archive: Archive, on_upload: Progress | None) -> None:
        def blocks() -> Iterator[bytes]:
            archive.file.seek(0)  # a retry sends it from its beginning
            sent = 0
            while block := archive.file.read(UPLOAD_BLOCK_BYTES):
                yield block
                sent += len(block)
                if on_upload is not None:
                    on_upload(sent, archive.size_bytes)

        answer = self._wire.send(
            "PUT",
            path_of("v1", "archives", archive.sha256),
            content=_Body(blocks),
            headers={"Content-Length": str(archive.size_bytes), "Content-Type": "application/gzip"},
            timeout=httpx.Timeout(UPLOAD_SECONDS_MAXIMUM, connect=CONNECT_SECONDS_MAXIMUM),
        )
        ArchiveAnswer.model_validate_json(answer.content)

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        project: str | None = None,
        tenant: str | None = None,
        limit: int | None = JOBS_DEFAULT,
    ) -> list[JobAnswer]:
        """Return the newest jobs, newest first; `limit` None for all of them."""
        query = {"state": list(states) or None, "project": project, "tenant": tenant}
        return list(self._wire.items("/v1/jobs", JobAnswer, maximum=limit, **query))

    def job(self, job_id: str) -> JobDetail:
        """Return a job with its attempts, why it waits, and when it should start."""
        return self._wire.get(path_of("v1", "jobs", job_id), JobDetail)

    def why(self, job_id: str) -> JobDetail:
        """Return the job with its reason and forecast; `terrace.reasons.sentence` puts the reason into words."""
        return self.job(job_id)

    def estimate(self, spec: JobSpec) -> EstimateAnswer:
        """Return what would happen to this job if it were submitted now. Nothing is kept."""
        return self._wire.act("POST", "/v1/estimates", EstimateAnswer, spec)

    def cancel(self, job_id: str) -> JobAnswer:
        """Ask for a job to end; doing it again changes nothing."""
        return self._wire.act("POST", path_of("v1", "jobs", job_id, "cancel"), JobAnswer)

    def wait(self, job_id: str, *, timeout_seconds: float | None = None, poll_seconds: float = POLL_SECONDS) -> JobDetail:
        """Return the job once it has ended; WaitTimeoutError after `timeout_seconds`, and the job goes on.

        A service that does not answer is asked again for `SILENCE_SECONDS_MAXIMUM`: waiting outlasts its restart.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        state = "unknown"
        while True:
            left = SILENCE_SECONDS_MAXIMUM if deadline is None else min(SILENCE_SECONDS_MAXIMUM, deadline - time.monotonic())
            job = self._patient_job(job_id, left)
            if job is not None and job.state in ENDED:
                return job
            state = state if job is None else job.state.value
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{job_id} is still {state} after {timeout_seconds} s")
            self._wire.pause(poll_seconds)

    def _patient_job(self, job_id: str, seconds: float = SILENCE_SECONDS_MAXIMUM) -> JobDetail | None:
        """Return the job; None when the service did not answer for `seconds`, which are less than its patience; else raise."""
        asked = time.monotonic()
        while True:
            try:
                return self.job(job_id)
            except (UnreachableError, ApiError) as error:
                if isinstance(error, ApiError) and not error.is_passing:
                    raise
                if time.monotonic() - asked >= SILENCE_SECONDS_MAXIMUM:
                    raise
            if time.monotonic() - asked >= seconds:
                return None
            self._wire.pause(POLL_SECONDS)

    def logs(self, job_id: str, *, attempt: int | None = None, follow: bool = False) -> Iterator[LogPiece]:
        """Yield pieces of output; with `follow` until the job ends, attempt after attempt unless one is named."""
        if not follow:
            yield from self._written(job_id, attempt)
            return
        current = attempt
        while True:
            end: LogEnd | None = None
            for said in self._one_attempt(job_id, current):
                if isinstance(said, LogPiece):
                    yield said
                else:
                    end = said
            if end is None or attempt is not None:
                return
            # The state in `end` is the job's at that moment, which may be later attempts' doing: only the job says whether there are any.
            following = self._next_attempt(job_id, end.attempt)
            if following is None:
                return
            current = following

    def logs_text(self, job_id: str, *, attempt: int | None = None) -> str:
        """Return all output so far of one attempt, the newest unless one is named."""
        return "".join(piece.text for piece in self.logs(job_id, attempt=attempt))

    def _written(self, job_id: str, attempt: int | None) -> Iterator[LogPiece]:
        offset = 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be cut in two by the end of an answer
        while True:
            answer = self._wire.get_text(path_of("v1", "jobs", job_id, "logs"), attempt=attempt, offset=offset)
            attempt = int(answer.headers.get("x-log-attempt", "0")) or attempt
            offset = int(answer.headers.get("x-log-next-offset", offset))
            text = decoder.decode(answer.content, final=not answer.content)
            if text:
                yield LogPiece(attempt=attempt or 0, next_offset=offset, text=text)
            if not answer.content:
                return

    def _one_attempt(self, job_id: str, attempt: int | None) -> Iterator[LogPiece | LogEnd]:
        followed = attempt

        def params() -> Mapping[str, Any]:
            # Once an attempt has spoken, a resumed stream must be about it: offsets of another one mean other bytes.
            return {"follow": "true", "attempt": followed}

        for event in streams.follow(self._wire, path_of("v1", "jobs", job_id, "logs"), params):
            if event.kind == streams.END:
                yield LogEnd.model_validate_json(event.data)
            elif event.kind == "log":
                piece = LogPiece.model_validate_json(event.data)
                followed = piece.attempt
                yield piece

    def _next_attempt(self, job_id: str, ended: int) -> int | None:
        while True:
            job = self._patient_job(job_id)
            if job is not None and job.attempt > ended:
                return ended + 1
            if job is not None and job.state in ENDED:
                return None
            self._wire.pause(POLL_SECONDS)

    def events(self, job_id: str | None = None, *, follow: bool = False, limit: int | None = None) -> Iterator[EventAnswer]:
        """Yield what happened to a job, oldest first, or to the whole tenant; with `follow` what happens from now on too."""
        path = "/v1/events" if job_id is None else path_of("v1", "jobs", job_id, "events")
        if not follow:
            yield from self._wire.items(path, EventAnswer, maximum=limit)
            return
        for event in streams.follow(self._wire, path, lambda: {"follow": "true"}, is_endless=job_id is None):
            if event.kind != streams.END:
                yield EventAnswer.model_validate_json(event.data)

    def quota(self, tenant: str | None = None) -> list[QuotaAnswer]:
        """Return the quotas in force and what is held against them: the own tenant's; for operators everybody's, or one tenant's."""
        return list(self._wire.items("/v1/quotas", QuotaAnswer, tenant=tenant))

    def flavors(self) -> list[FlavorAnswer]:
        """Return the kinds of slices that can be asked for, with their prices now."""
        return list(self._wire.items("/v1/flavors", FlavorAnswer))

    def usage(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        by: Sequence[str] | None = None,
        tenant: str | None = None,
    ) -> UsageReport:
        """Return usage and cost of ended leases in [start, end), grouped by tenant, project, user, flavor or job."""
        return self._wire.get("/v1/usage", UsageReport, **_usage_query(start, end, by, tenant))

    def usage_csv(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        by: Sequence[str] | None = None,
        tenant: str | None = None,
    ) -> str:
        """Return the rows of the same report as CSV, with amounts in whole currency beside the accounted units."""
        return self._wire.get_text("/v1/usage", accept="text/csv", **_usage_query(start, end, by, tenant)).text


class _Body:
    """An upload that can be read again from its beginning when it must be sent again."""

    def __init__(self, blocks: Callable[[], Iterator[bytes]]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body's blocks from the first."""
        return self._blocks()


def _usage_query(start: datetime | None, end: datetime | None, by: Sequence[str] | None, tenant: str | None) -> dict[str, str | None]:
    return {"from": _moment(start), "to": _moment(end), "by": None if by is None else ",".join(by), "tenant": tenant}


def _moment(time_given: datetime | None) -> str | None:
    return None if time_given is None else time_given.isoformat()
