"""From what an agent saw to what follows: pure functions, one per kind of observation.

Each takes the open lease (with its job) and the observation and returns the `Change` that the store applies. The state table of
domain/states.py is the only way from one job state to the next. What came twice, late or out of order changes nothing but its own mark.
Nothing that an observation holds makes these functions raise: what an agent says badly must not stop the cycle for everybody.

Times: a lease's stamps never go backwards and never lie in the future: an agent's time is clamped between the stamp before it and now. A
lease that was told to stop is charged until the exit that was seen, or until stop plus grace if that is earlier (design.md section 8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domain.states import FailureClass, JobEvent, JobState, JobTarget, LeaseEndCause, advance
from executors.base import Phase, Status
from store.jobs import canonical
from store.leases import Change, OpenLease
from store.observations import Seen

MESSAGE_LENGTH_MAXIMUM = 2_000
PROGRESS_FIELDS_MAXIMUM = 64
EXIT_CODE_MAXIMUM = (1 << 31) - 1
NO_OBSERVATION = 0  # the identifier of a sighting, which is no row
EVERY_NODE = ""  # the node of a sighting that speaks for all nodes of its lease

# What an agent may name as the cause of an end. Anything else is ours to explain, so it counts as the platform's.
_FROM_AGENTS = frozenset(FailureClass) - {FailureClass.DEPENDENCY_FAILED}

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


# Ends that nobody's program caused and that count towards the job's attempts; others count when a failure was seen.
_COUNTS = frozenset({LeaseEndCause.NEVER_STARTED, LeaseEndCause.NODE_LOST})
_FOR_OTHERS = frozenset({LeaseEndCause.PREEMPTED, LeaseEndCause.RECLAIMED})


def follow(lease: OpenLease, seen: Seen, *, now_ms: int) -> Change:
    """Return what follows from `seen` for `lease`."""
    handlers = {"started": _on_started, "progress": _on_progress, "exited": _on_exited, "lost": _on_lost, "gone": _on_gone}
    handler = handlers.get(seen.kind)
    if handler is None:
        return _nothing(lease, seen)
    return handler(lease, seen, now_ms)


def sighting(lease: OpenLease, status: Status, *, now_ms: int) -> Seen | None:
    """Return what an executor's status says that the lease's rows do not know, as if it had been seen; one thing at a time, in order."""
    is_nowhere = status.phase is Phase.GONE or (
        status.phase is Phase.ABSENT and (lease.target == "stop" or lease.running_at_ms is not None)
    )
    is_over = is_nowhere or status.phase is Phase.EXITED
    is_up = status.phase is Phase.RUNNING or (is_over and status.started_at_ms is not None)
    if is_up and lease.running_at_ms is None and lease.ended_at_ms is None:
        return _sighted(lease, "started", status.started_at_ms, now_ms)
    if status.exited_at_ms is not None and is_over and lease.ended_at_ms is None:
        told = {"exit_code": status.exit_code, "failure_class": status.failure_class, "message": status.message}
        return _sighted(lease, "exited", status.exited_at_ms, now_ms, told)
    return _sighted(lease, "gone", status.gone_at_ms, now_ms) if is_nowhere else None


def _sighted(lease: OpenLease, kind: str, at_ms: int | None, now_ms: int, data: Mapping[str, Any] | None = None) -> Seen:
    return Seen(NO_OBSERVATION, EVERY_NODE, kind, lease.id, now_ms if at_ms is None else at_ms, data or {})


def _nothing(lease: OpenLease, seen: Seen) -> Change:
    return Change(lease.id, (seen.id,))


def _moves_job(lease: OpenLease) -> bool:
    """Tell whether the job is still in this lease's attempt: a later attempt is none of this lease's business."""
    return lease.job_attempt == lease.attempt and lease.job_state in (JobState.STARTING, JobState.RUNNING)


def _on_started(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    if lease.ended_at_ms is not None or lease.running_at_ms is not None or lease.job_state != JobState.STARTING or not _moves_job(lease):
        return _nothing(lease, seen)
    latest_ms = now_ms
    if lease.stop_requested_at_ms is not None:  # the end is never charged later than this, so the start cannot lie behind it
        latest_ms = min(now_ms, lease.stop_requested_at_ms + lease.grace_ms)
    at_ms = _clamp(seen.observed_at_ms, lease.granted_at_ms, latest_ms)
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


def _on_progress(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    if not _moves_job(lease):
        return _nothing(lease, seen)
    metrics = seen.data.get("metrics")
    told = {**(metrics if isinstance(metrics, Mapping) else {}), **seen.data}
    plain = [(key, value) for key, value in told.items() if _is_plain(value)][:PROGRESS_FIELDS_MAXIMUM]
    job: dict[str, Any] = {"progress": canonical(dict(plain))}
    if seen.data.get("checkpoint") is True:
        job["checkpoint_at_ms"] = _clamp(seen.observed_at_ms, lease.running_at_ms or lease.granted_at_ms, now_ms)
    return Change(lease.id, (seen.id,), job_version=lease.job_version, job=job)


def _is_plain(told: object) -> bool:
    return isinstance(told, str | int) or (isinstance(told, float) and math.isfinite(told))


def _on_exited(lease: OpenLease, seen: Seen, now_ms: int) -> Change:
    if lease.ended_at_ms is not None:
        return _nothing(lease, seen)
    exit_code, failure = _exit_code(seen.data.get("exit_code")), _failure(seen.data.get("failure_class"))
    message = _message(seen.data.get("message"))
    is_by_stop = _was_stopped_before(lease, seen)
    if exit_code == 0 and failure is None and not is_by_stop:
        return end(lease, JobEvent.EXITED_ZERO, LeaseEndCause.COMPLETED, at_ms=seen.observed_at_ms, now_ms=now_ms, seen=seen, exit_code=0)
    if exit_code is None and failure is None:
        failure = FailureClass.PLATFORM  # nobody knows how it ended, and that is not the user's doing
    cause, event, failure = _why_ended(lease, failure, is_by_stop=is_by_stop)
    return end(
        lease, event, cause, at_ms=seen.observed_at_ms, now_ms=now_ms, seen=seen, exit_code=exit_code, failure=failure, message=message
    )


def _was_stopped_before(lease: OpenLease, seen: Seen) -> bool:
    """Tell whether the exit is the work of our stop. A program that is stopped half-way and exits with 0 has not succeeded, and one that
    ended by itself just before the stop came ended as it did. The runner knows which came first; without its word the times must do.
    """
    if lease.stop_requested_at_ms is None:
        return False
    told = seen.data.get("was_stopped")
    return told if isinstance(told, bool) else seen.observed_at_ms >= lease.stop_requested_at_ms


def _why_ended(lease: OpenLease, failure: FailureClass | None, *, is_by_stop: bool) -> tuple[LeaseEndCause, JobEvent, FailureClass | None]:
    if lease.stop_cause is not None and is_by_stop:
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
    message = _message(seen.data.get("message")) or "the node's agent restarted and the lease did not survive it"
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
    gone = tuple(part.node_id for part in lease.parts if seen.node_id in (part.node_id, EVERY_NODE))
    if not all(part.is_gone or part.node_id in gone for part in lease.parts):
        return Change(lease.id, (seen.id,), gone_node_ids=gone)
    if lease.ended_at_ms is not None:
        released_at_ms = max(lease.ended_at_ms, _clamp(seen.observed_at_ms, lease.granted_at_ms, now_ms))
        return Change(
            lease.id, (seen.id,), lease={"released_at_ms": released_at_ms}, gone_node_ids=gone, is_released=True,
            events=(("lease_released", {"attempt": lease.attempt}),),
        )  # fmt: skip
    cause, event, failure = _why_ended(lease, FailureClass.PLATFORM, is_by_stop=True)
    message = "the lease could not be started" if cause is LeaseEndCause.NEVER_STARTED else "the lease ended unseen"
    ended = end(lease, event, cause, at_ms=seen.observed_at_ms, now_ms=now_ms, seen=seen, failure=failure, message=message)
    released_at_ms = max(ended.lease["ended_at_ms"], _clamp(seen.observed_at_ms, lease.granted_at_ms, now_ms))
    return Change(
        lease.id, ended.observation_ids, {**ended.lease, "released_at_ms": released_at_ms}, job_version=ended.job_version, job=ended.job,
        attempt=ended.attempt, gone_node_ids=gone, is_released=True,
        events=(*ended.events, ("lease_released", {"attempt": lease.attempt})),
    )  # fmt: skip


def declared_gone(lease: OpenLease, *, now_ms: int) -> Change | None:
    """Return what follows when an operator said that nodes of a lease do not come back; None when none of its nodes is one of them."""
    gone = [part for part in lease.parts if part.is_declared_gone and not part.is_gone]
    if not gone:
        return None
    told = {"message": "the node was lost and an operator declared it gone"}
    change = _on_lost(lease, _sighted(lease, "lost", None, now_ms, told), now_ms)
    is_released = all(part.is_gone or part in gone for part in lease.parts)
    ended_at_ms = change.lease.get("ended_at_ms", lease.ended_at_ms)
    fields = {**change.lease, **({"released_at_ms": max(now_ms, ended_at_ms)} if is_released else {})}
    events = (*change.events, *((("lease_released", {"attempt": lease.attempt}),) if is_released else ()))
    return replace(
        change, observation_ids=(), lease=fields, gone_node_ids=tuple(part.node_id for part in gone), is_released=is_released, events=events
    )


def end(
    lease: OpenLease,
    event: JobEvent,
    cause: LeaseEndCause,
    *,
    at_ms: int,
    now_ms: int,
    seen: Seen | None = None,
    exit_code: int | None = None,
    failure: FailureClass | None = None,
    message: str | None = None,
) -> Change:
    """Return the change that ends a lease once, and moves its job by `event`; a job out of attempts fails instead of queueing again."""
    earliest_ms = lease.running_at_ms or lease.granted_at_ms
    ended_at_ms = _clamp(at_ms, earliest_ms, now_ms)
    if lease.stop_requested_at_ms is not None:
        ended_at_ms = min(ended_at_ms, max(earliest_ms, lease.stop_requested_at_ms + lease.grace_ms))
    outcome = {"exit_code": exit_code, "failure_class": failure.value if failure else None, "message": message}
    job: dict[str, Any] = {}
    events: list[tuple[str, Mapping[str, Any]]] = [("lease_ended", {"attempt": lease.attempt, "cause": cause.value})]
    if _moves_job(lease):
        counts = failure is not None or cause in _COUNTS
        state = _next_state(lease, event, counts=counts)
        job = {"state": state.value, **outcome}
        if state.is_terminal:
            job["ended_at_ms"] = ended_at_ms
            if state is JobState.FAILED and failure is None:  # evicted as often as is allowed: no run of it failed by itself
                job |= {"failure_class": FailureClass.PLATFORM.value, "message": message or f"{cause.value}: no attempt is left"}
        else:
            job |= {"started_at_ms": None, "progress": None, "checkpoint_at_ms": None, "exit_code": None, "failure_class": None}
            job |= {"failed_attempts": lease.failed_attempts + 1} if counts else {}
            job |= {"was_preempted": True} if cause in _FOR_OTHERS else {}
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


def _next_state(lease: OpenLease, event: JobEvent, *, counts: bool) -> JobState:
    """Return the job's state after `event`: what would queue again does not when it was cancelled or has no attempt left."""
    state = advance(JobState(lease.job_state), event)
    if state is JobState.QUEUED and lease.job_target == JobTarget.CANCEL:
        return advance(state, JobEvent.CANCEL_DONE)
    if state is JobState.QUEUED and counts and lease.failed_attempts + 1 >= lease.maximum_attempts:
        return advance(state, JobEvent.ATTEMPTS_SPENT)
    return state


def _exit_code(told: object) -> int | None:
    is_code = isinstance(told, int) and not isinstance(told, bool) and abs(told) <= EXIT_CODE_MAXIMUM
    return told if is_code else None  # type: ignore[return-value]  # is_code says so


def _failure(told: object) -> FailureClass | None:
    if told is None or told == "":
        return None
    return next((failure for failure in _FROM_AGENTS if failure == told), FailureClass.PLATFORM)


def _message(told: object) -> str | None:
    """Return text that every database can keep: no NUL, no half characters, of a bounded length."""
    if not isinstance(told, str):
        return None
    return told[:MESSAGE_LENGTH_MAXIMUM].encode("utf-8", "replace").decode().replace("\0", "?") or None


def _clamp(at_ms: int, earliest_ms: int, latest_ms: int) -> int:
    return max(earliest_ms, min(at_ms, latest_ms))
