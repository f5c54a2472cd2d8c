"""What follows from an observation or a status, for any lease and anything that may be said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.states import TERMINAL_STATES, JobState, LeaseEndCause
from executors.base import Phase, Status
from scheduler.service import reconcile, transitions
from scheduler.service.reconcile import Deadlines
from store.leases import Change, NodePart, OpenLease
from store.observations import Seen

T0_MS = 1_000_000
LEASE = OpenLease(
    id="lea_1",
    job_id="job_1",
    attempt=2,
    target="run",
    stop_cause=None,
    stop_requested_at_ms=None,
    limit_ms=60_000,
    grace_ms=10_000,
    granted_at_ms=T0_MS,
    running_at_ms=None,
    ended_at_ms=None,
    job_state="starting",
    job_target="run",
    job_version=3,
    job_attempt=2,
    maximum_attempts=3,
    tenant_id="ten_a",
    parts=(NodePart("node_a", "a", "head", False, False, False), NodePart("node_b", "b", "worker", False, False, False)),
)
times = st.integers(T0_MS - 100_000, T0_MS + 200_000)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
words = st.sampled_from(["exit_code", "failure_class", "message", "step", "metrics", "other"])
causes = st.sampled_from([cause.value for cause in LeaseEndCause if cause not in (LeaseEndCause.COMPLETED, LeaseEndCause.FAILED)])


@st.composite
def leases(draw: st.DrawFn) -> OpenLease:
    """Any open lease: not yet running, running or ended; left alone or told to stop; of the job's attempt now or of an earlier one."""
    running_at_ms = draw(st.none() | st.integers(T0_MS, T0_MS + 50_000))
    is_stopping = draw(st.booleans())
    asked_at_ms = draw(st.integers(running_at_ms or T0_MS, T0_MS + 100_000)) if is_stopping else None
    is_current = draw(st.booleans())
    ended_at_ms = draw(st.none() | st.integers(running_at_ms or T0_MS, T0_MS + 120_000))
    state = "queued" if ended_at_ms is not None or not is_current else ("starting" if running_at_ms is None else "running")
    return replace(
        LEASE,
        target="stop" if is_stopping or ended_at_ms is not None else "run",
        stop_cause=draw(causes) if is_stopping else None,
        stop_requested_at_ms=asked_at_ms,
        running_at_ms=running_at_ms,
        ended_at_ms=ended_at_ms,
        job_state=state,
        job_target=draw(st.sampled_from(["run", "cancel"])),
        job_attempt=2 if is_current else 3,
        maximum_attempts=draw(st.integers(2, 3)),
    )


@st.composite
def sightings(draw: st.DrawFn) -> Seen:
    """Anything that an agent may say, with any data."""
    kind = draw(st.sampled_from(["started", "progress", "exited", "lost", "gone", "device_health", "unheard of"]))
    data = draw(st.dictionaries(words, values, max_size=4))
    return Seen(7, draw(st.sampled_from(["node_a", "node_b"])), kind, "lea_1", draw(times), data)


def stamps(lease: OpenLease, change: Change) -> list[int]:
    """Return the stamps that are known once the change is applied, in the order in which they must lie."""
    known: dict[str, Any] = {name: getattr(lease, name) for name in ("granted_at_ms", "running_at_ms", "ended_at_ms")}
    known["released_at_ms"] = None
    known |= {name: value for name, value in change.lease.items() if name in known}
    return [value for value in known.values() if value is not None]


@given(leases(), sightings(), times)
@settings(max_examples=500, deadline=None)
def test_whatever_is_said_follows_something_that_the_rows_can_keep(lease: OpenLease, seen: Seen, now_ms: int) -> None:
    change = transitions.follow(lease, seen, now_ms=now_ms)

    assert change.observation_ids == (7,)
    assert stamps(lease, change) == sorted(stamps(lease, change))
    assert not change.is_released or "released_at_ms" in change.lease
    assert lease.ended_at_ms is None or "ended_at_ms" not in change.lease
    for value in [*change.lease.values(), *change.job.values(), *change.attempt.values()]:
        assert not isinstance(value, str) or ("\0" not in value and value.encode())
        assert not isinstance(value, int) or abs(value) < 1 << 63


@given(leases(), sightings(), times)
@settings(max_examples=500, deadline=None)
def test_job_moves_only_in_its_own_attempt_and_ends_with_a_time(lease: OpenLease, seen: Seen, now_ms: int) -> None:
    job = transitions.follow(lease, seen, now_ms=now_ms).job

    if lease.job_attempt != lease.attempt or lease.ended_at_ms is not None:
        assert job == {}
    if "state" in job:
        state = JobState(job["state"])
        assert ("ended_at_ms" in job) == (state in TERMINAL_STATES)
        assert state is not JobState.QUEUED or lease.job_target == "run"
        assert job.get("failed_attempts", lease.failed_attempts) < lease.maximum_attempts or state is not JobState.QUEUED
        assert state is not JobState.FAILED or job["failure_class"] is not None


@given(leases(), times)
@settings(max_examples=200, deadline=None)
def test_lease_is_never_charged_beyond_stop_plus_grace(lease: OpenLease, at_ms: int) -> None:
    seen = Seen(7, "node_a", "exited", "lea_1", at_ms, {"exit_code": 143})
    ended_at_ms = transitions.follow(lease, seen, now_ms=T0_MS + 10**9).lease.get("ended_at_ms")

    if ended_at_ms is not None and lease.stop_requested_at_ms is not None:
        assert ended_at_ms <= lease.stop_requested_at_ms + lease.grace_ms


@given(leases(), times)
@settings(max_examples=200, deadline=None)
def test_stop_is_written_down_once_and_not_before_what_the_lease_has_seen(lease: OpenLease, now_ms: int) -> None:
    change = reconcile.step(lease, Deadlines(start_ms=1_000, overrun_ms=1_000), now_ms=now_ms)

    if change is not None:
        assert (lease.target, lease.ended_at_ms) == ("run", None)
        assert change.lease["stop_requested_at_ms"] >= (lease.running_at_ms or lease.granted_at_ms)


def test_status_that_is_far_ahead_is_followed_one_thing_at_a_time() -> None:
    status = Status(Phase.GONE, T0_MS + 1, T0_MS + 2, T0_MS + 3, exit_code=0)
    lease = LEASE
    kinds: list[tuple[str, int]] = []
    while (seen := transitions.sighting(lease, status, now_ms=T0_MS + 9)) is not None and len(kinds) < 4:
        kinds.append((seen.kind, seen.observed_at_ms))
        change = transitions.follow(lease, seen, now_ms=T0_MS + 9)
        if change.is_released:
            break
        known = {name: value for name, value in change.lease.items() if hasattr(lease, name)}
        lease = replace(lease, **known, job_state=change.job.get("state", lease.job_state))

    assert kinds == [("started", T0_MS + 1), ("exited", T0_MS + 2), ("gone", T0_MS + 3)]


@given(leases(), st.sampled_from(Phase), times)
@settings(max_examples=200, deadline=None)
def test_what_is_out_of_sight_or_still_starting_says_nothing(lease: OpenLease, phase: Phase, now_ms: int) -> None:
    seen = transitions.sighting(lease, Status(phase), now_ms=now_ms)

    if phase in (Phase.STARTING, Phase.OUT_OF_SIGHT):
        assert seen is None
    if phase is Phase.ABSENT and lease.target == "run" and lease.running_at_ms is None:
        assert seen is None
