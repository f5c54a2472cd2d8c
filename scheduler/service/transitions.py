"""From what an agent saw to what follows: pure functions, one per kind of observation.

Each takes the open lease (with its job) and the observation and returns the `Change` that the store applies. The state table of
domain/states.py is the only way from one job state to the next. What came twice, late or out of order changes nothing but its own mark.

Times: a lease's stamps never go backwards and never lie in the future: an agent's time is clamped between the stamp before it and now. A
lease that was told to stop is charged until the exit that was seen, or until stop plus grace if that is earlier (design.md section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.states import FailureClass, JobEvent, JobState, JobTarget, LeaseEndCause, advance
from store.jobs import canonical
from store.leases import Change, OpenLease
from store.observations import Seen

MESSAGE_LENGTH_MAXIMUM = 2_000

# What a stopped lease's job does next, by the cause of the stop.
_STOPPED = {
    LeaseEndCause.CANCELLED: JobEvent.CANCEL_DONE,
    LeaseEndCause.TIME_LIMIT: JobEvent.EXITED_FAILED,
    LeaseEndCause.PREEMPTED: JobEvent.PREEMPTED,
    LeaseEndCause.RECLAIMED: JobEvent.RECLAIMED,
    LeaseEndCause.EVICTED: JobEvent.EVICTED,
    LeaseEndCause.NEVER_STARTED: JobEvent.EVICTED,
    LeaseEndCause.NODE_LOST: JobEvent.NODE_LOST,
}


def follow(lease: OpenLease, seen: Seen, *, now_ms: int) -> Change:
    """Return what follows from `seen` for `lease`."""
    handlers = {"started": _on_started, "progress": _on_progress, "exited": _on_exited, "lost": _on_lost, "gone": _on_gone}
    handler = handlers.get(seen.kind)
    if handler is None:
        return _nothing(lease, seen)
    return handler(lease, seen, now_ms)


def _nothing(lease: OpenLease, seen: Seen) -> Change:
    return Change(lease.id, (seen.id,))


def _moves_job(lease: OpenLease) -> bool:
    """Tell whether the job is still in this lease's attempt: a later attempt is none of this lease's business."""
    return lease.job_attempt == lease.attempt and lease.job_state in (JobState.STARTING, JobState.RUNNING)


def _on_started(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    if lease.ended_at_ms is not None or lease.running_at_ms is not None or not _moves_job(lease):
        return _nothing(lease, seen)
    at_ms = _clamp(seen.observed_at_ms, lease.granted_at_ms, now_ms)
    state = advance(JobState(lease.job_state), JobEvent.STARTED)
    return Change(
        lease.id,
        (seen.id,),
        lease={"running_at_ms": at_ms},
        job_version=lease.job_version,
        job={"state": state.value, "started_at_ms": at_ms},
        attempt={"started_at_ms": at_ms},
        events=(("job_started", {"attempt": lease.attempt}),),
    )


def _on_progress(lease: OpenLease, seen: Seen, _now_ms: int) -> Change:
    if not _moves_job(lease):
        return _nothing(lease, seen)
    from_agent = {key: value for key, value in seen.data.items() if isinstance(value, str | int | float | bool)}
    return Change(lease.id, (seen.id,), job_version=lease.job_version, job={"progress": canonical(from_agent)})


def _on_exited(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    if lease.ended_at_ms is not None:
        return _nothing(lease, seen)
    exit_code = seen.data.get("exit_code")
    failure = FailureClass(seen.data["failure_class"]) if seen.data.get("failure_class") else None
    message = str(seen.data.get("message") or "")[:MESSAGE_LENGTH_MAXIMUM] or None
    if exit_code == 0 and failure is None:
        return end(lease, JobEvent.EXITED_ZERO, LeaseEndCause.COMPLETED, at_ms=seen.observed_at_ms, now_ms=now_ms, seen=seen, exit_code=0)
    cause, event, failure = _why_ended(lease, failure)
    return end(
        lease, event, cause, at_ms=seen.observed_at_ms, now_ms=now_ms, seen=seen, exit_code=exit_code, failure=failure, message=message
    )


def _why_ended(lease: OpenLease, failure: FailureClass | None) -> tuple[LeaseEndCause, JobEvent, FailureClass | None]:
    if lease.stop_cause is not None:
        cause = LeaseEndCause(lease.stop_cause)
        return cause, _STOPPED[cause], FailureClass.TIME_LIMIT if cause is LeaseEndCause.TIME_LIMIT else None
    failure = failure or FailureClass.USER_CODE
    if failure is FailureClass.TIME_LIMIT:
        return LeaseEndCause.TIME_LIMIT, JobEvent.EXITED_FAILED, failure
    if failure.is_user_caused:
        return LeaseEndCause.FAILED, JobEvent.EXITED_FAILED, failure
    return LeaseEndCause.EVICTED, JobEvent.EVICTED, failure


def _on_lost(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    if lease.ended_at_ms is not None:
        return _nothing(lease, seen)
    message = str(seen.data.get("message") or "the node's agent restarted and the lease did not survive it")[:MESSAGE_LENGTH_MAXIMUM]
    event = JobEvent.CANCEL_DONE if lease.job_target == JobTarget.CANCEL else JobEvent.NODE_LOST
    return end(
        lease,
        event,
        LeaseEndCause.NODE_LOST,
        at_ms=seen.observed_at_ms,
        now_ms=now_ms,
        seen=seen,
        failure=FailureClass.NODE,
        message=message,
    )


def _on_gone(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    """The node's part is proven free. When it is the last part the lease is released; an exit that nobody saw counts as lost."""
    is_last = all(part.is_gone or part.node_id == seen.node_id for part in lease.parts)
    if not is_last:
        return Change(lease.id, (seen.id,), gone_node_ids=(seen.node_id,))
    if lease.ended_at_ms is not None:
        released_at_ms = max(lease.ended_at_ms, _clamp(seen.observed_at_ms, lease.granted_at_ms, now_ms))
        return Change(
            lease.id, (seen.id,), lease={"released_at_ms": released_at_ms}, gone_node_ids=(seen.node_id,), is_released=True,
            events=(("lease_released", {"attempt": lease.attempt}),),
        )  # fmt: skip
    cause, event, failure = _why_ended(lease, FailureClass.PLATFORM)
    ended = end(lease, event, cause, at_ms=seen.observed_at_ms, now_ms=now_ms, seen=seen, failure=failure, message="the lease ended unseen")
    fields = {**ended.lease, "released_at_ms": ended.lease["ended_at_ms"]}
    return Change(
        lease.id, ended.observation_ids, fields, job_version=ended.job_version, job=ended.job, attempt=ended.attempt,
        gone_node_ids=(seen.node_id,), is_released=True, events=ended.events,
    )  # fmt: skip


def end(
    lease: OpenLease,
    event: JobEvent,
    cause: LeaseEndCause,
    *,
    at_ms: int,
    now_ms: int,
    seen: Seen | None = None,
    exit_code: Any = None,
    failure: FailureClass | None = None,
    message: str | None = None,
) -> Change:
    """Return the change that ends a lease once, and moves its job by `event`; a job out of attempts fails instead of queueing again."""
    ended_at_ms = _clamp(at_ms, lease.running_at_ms or lease.granted_at_ms, now_ms)
    if lease.stop_requested_at_ms is not None:
        ended_at_ms = min(ended_at_ms, max(lease.granted_at_ms, lease.stop_requested_at_ms + lease.grace_ms))
    outcome = {
        "exit_code": exit_code if isinstance(exit_code, int) else None,
        "failure_class": failure.value if failure else None,
        "message": message,
    }
    job: dict[str, Any] = {}
    events: list[tuple[str, Mapping[str, Any]]] = [("lease_ended", {"attempt": lease.attempt, "cause": cause.value})]
    if _moves_job(lease):
        state = advance(JobState(lease.job_state), event)
        if state is JobState.QUEUED and lease.job_target == JobTarget.CANCEL:
            state = advance(state, JobEvent.CANCEL_DONE)
        elif state is JobState.QUEUED and lease.attempt >= lease.maximum_attempts:
            state = advance(state, JobEvent.ATTEMPTS_SPENT)
        job = {"state": state.value, **outcome}
        if state.is_terminal:
            job["ended_at_ms"] = ended_at_ms
        else:
            job |= {"started_at_ms": None, "progress": None, "exit_code": None, "failure_class": None}
        events.append((f"job_{state.value}", {"attempt": lease.attempt, "cause": cause.value, **outcome}))
    return Change(
        lease.id,
        (seen.id,) if seen else (),
        lease={"ended_at_ms": ended_at_ms, "end_cause": cause.value, "failure_class": outcome["failure_class"], "target": "stop"},
        job_version=lease.job_version,
        job=job,
        attempt={"ended_at_ms": ended_at_ms, "outcome": cause.value, **outcome},
        events=tuple(events),
    )


def _clamp(at_ms: int, earliest_ms: int, latest_ms: int) -> int:
    return max(earliest_ms, min(at_ms, latest_ms))
