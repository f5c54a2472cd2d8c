"""The state table: every pair is either an edge that the design draws or raises."""

from __future__ import annotations

import pytest

from domain import states
from domain.states import FailureClass, IllegalTransitionError, JobEvent, JobState, LeaseEndCause

QUEUED, HELD, STARTING, RUNNING = JobState.QUEUED, JobState.HELD, JobState.STARTING, JobState.RUNNING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED

EDGES = {
    QUEUED: {
        JobEvent.LEASE_BOUND: STARTING,
        JobEvent.CANCEL_DONE: CANCELLED,
        JobEvent.HELD: HELD,
        JobEvent.ATTEMPTS_SPENT: FAILED,
        JobEvent.EXITED_FAILED: FAILED,
    },
    HELD: {JobEvent.RELEASED: QUEUED, JobEvent.CANCEL_DONE: CANCELLED},
    STARTING: {
        JobEvent.STARTED: RUNNING,
        JobEvent.EXITED_ZERO: SUCCEEDED,
        JobEvent.EXITED_FAILED: FAILED,
        JobEvent.CANCEL_DONE: CANCELLED,
        JobEvent.PREEMPTED: QUEUED,
        JobEvent.RECLAIMED: QUEUED,
        JobEvent.EVICTED: QUEUED,
        JobEvent.NODE_LOST: QUEUED,
    },
    RUNNING: {
        JobEvent.EXITED_ZERO: SUCCEEDED,
        JobEvent.EXITED_FAILED: FAILED,
        JobEvent.CANCEL_DONE: CANCELLED,
        JobEvent.PREEMPTED: QUEUED,
        JobEvent.RECLAIMED: QUEUED,
        JobEvent.EVICTED: QUEUED,
        JobEvent.NODE_LOST: QUEUED,
    },
}
PAIRS = [pytest.param(state, event, id=f"{state.value} and {event.value}") for state in JobState for event in JobEvent]


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_pair_is_an_edge_of_the_design_or_raises(state: JobState, event: JobEvent) -> None:
    expected = EDGES.get(state, {}).get(event)
    if expected is not None:
        assert states.advance(state, event) is expected
        return
    with pytest.raises(IllegalTransitionError, match=f"no transition from {state.value} by {event.value}") as refused:
        states.advance(state, event)
    assert (refused.value.state, refused.value.event) == (state, event)


def test_three_states_are_terminal_and_nothing_leaves_them() -> None:
    assert {state for state in JobState if state.is_terminal} == {SUCCEEDED, FAILED, CANCELLED}
    assert not [pair for pair in states.TRANSITIONS if pair[0].is_terminal]


def test_every_state_that_is_not_terminal_can_reach_every_end() -> None:
    for start in (QUEUED, HELD, STARTING, RUNNING):
        reached = {start}
        while more := {to for (state, _), to in states.TRANSITIONS.items() if state in reached} - reached:
            reached |= more
        assert {SUCCEEDED, FAILED, CANCELLED} <= reached


def test_every_event_and_every_state_is_used() -> None:
    assert {event for _, event in states.TRANSITIONS} == set(JobEvent)
    assert {state for state, _ in states.TRANSITIONS} | set(states.TRANSITIONS.values()) == set(JobState)


def test_users_pay_in_full_for_what_users_cause() -> None:
    caused = {failure.value for failure in FailureClass if failure.is_user_caused}
    assert caused == {"user_code", "out_of_memory", "time_limit", "environment"}


def test_words_of_the_table_are_the_words_of_the_wire() -> None:
    assert [state.value for state in JobState] == ["queued", "held", "starting", "running", "succeeded", "failed", "cancelled"]
    assert [cause.value for cause in LeaseEndCause] == [
        "completed", "failed", "cancelled", "time_limit", "preempted", "reclaimed", "evicted", "node_lost", "never_started",
    ]  # fmt: skip
