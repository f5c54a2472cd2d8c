"""The states of a job and the one table that moves them (design.md section 5).

`advance(state, event)` is the only way from one state to the next; a pair that is not in the table raises. Ends carry a
failure class, which decides who pays. Attempts and leases follow the job: an attempt ends when its job leaves
starting or running, a lease when its devices are proven free.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. The last three are terminal."""

    QUEUED = "queued"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True when no event can move the job any more."""
        return self in TERMINAL_STATES


class JobTarget(StrEnum):
    """What the job's owner wants: to run, or to be gone."""

    RUN = "run"
    CANCEL = "cancel"


class JobEvent(StrEnum):
    """What can happen to a job."""

    LEASE_BOUND = "lease_bound"
    STARTED = "started"
    EXITED_ZERO = "exited_zero"
    EXITED_FAILED = "exited_failed"
    CANCEL_DONE = "cancel_done"
    PREEMPTED = "preempted"
    RECLAIMED = "reclaimed"
    EVICTED = "evicted"
    NODE_LOST = "node_lost"
    ATTEMPTS_SPENT = "attempts_spent"
    HELD = "held"
    RELEASED = "released"


class FailureClass(StrEnum):
    """Why an attempt did not succeed. The first four are the user's, and charged in full.

    A dependency's failure is neither the user's nor ours: the job never ran, so there is nothing to charge. The rest are credited back.
    """

    USER_CODE = "user_code"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    ENVIRONMENT = "environment"
    NODE = "node"
    DEVICE = "device"
    PLATFORM = "platform"
    DEPENDENCY_FAILED = "dependency_failed"

    @property
    def is_user_caused(self) -> bool:
        """True when the attempt's time is charged in full."""
        return self in {FailureClass.USER_CODE, FailureClass.OUT_OF_MEMORY, FailureClass.TIME_LIMIT, FailureClass.ENVIRONMENT}


class LeaseEndCause(StrEnum):
    """Why a lease was closed; set once."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIME_LIMIT = "time_limit"
    PREEMPTED = "preempted"
    RECLAIMED = "reclaimed"
    EVICTED = "evicted"
    NODE_LOST = "node_lost"
    NEVER_STARTED = "never_started"


TERMINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

_Q, _H, _S, _R = JobState.QUEUED, JobState.HELD, JobState.STARTING, JobState.RUNNING

TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (_Q, JobEvent.LEASE_BOUND): _S,  # a plan named slices for it and the guarded transaction kept them
    (_Q, JobEvent.CANCEL_DONE): JobState.CANCELLED,  # nothing to stop
    (_Q, JobEvent.HELD): _H,  # budget spent or an operator's hold
    (_Q, JobEvent.ATTEMPTS_SPENT): JobState.FAILED,  # the platform failed it as often as is allowed
    (_Q, JobEvent.EXITED_FAILED): JobState.FAILED,  # a dependency failed
    (_H, JobEvent.RELEASED): _Q,  # by a person or by money, nothing else
    (_H, JobEvent.CANCEL_DONE): JobState.CANCELLED,
    (_S, JobEvent.STARTED): _R,  # the agent saw the entrypoint's process
    (_S, JobEvent.EXITED_ZERO): JobState.SUCCEEDED,  # so short that start and exit arrived together
    (_S, JobEvent.EXITED_FAILED): JobState.FAILED,  # user code, environment or time limit
    (_S, JobEvent.CANCEL_DONE): JobState.CANCELLED,
    (_S, JobEvent.PREEMPTED): _Q,
    (_S, JobEvent.RECLAIMED): _Q,
    (_S, JobEvent.EVICTED): _Q,  # node drained, device faulty or the platform failed: the next attempt
    (_S, JobEvent.NODE_LOST): _Q,
    (_R, JobEvent.EXITED_ZERO): JobState.SUCCEEDED,
    (_R, JobEvent.EXITED_FAILED): JobState.FAILED,
    (_R, JobEvent.CANCEL_DONE): JobState.CANCELLED,
    (_R, JobEvent.PREEMPTED): _Q,
    (_R, JobEvent.RECLAIMED): _Q,
    (_R, JobEvent.EVICTED): _Q,
    (_R, JobEvent.NODE_LOST): _Q,
}


class IllegalTransitionError(Exception):
    """The state table has no such edge: a defect of ours or a message that came twice."""

    def __init__(self, state: JobState, event: JobEvent) -> None:
        super().__init__(f"no transition from {state.value} by {event.value}")
        self.state = state
        self.event = event


def advance(state: JobState, event: JobEvent) -> JobState:
    """Return the next state, or raise `IllegalTransitionError`."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(state, event) from None
