"""One step per open lease towards its target: pure choices, made every cycle.

`step` covers what no observation says: a cancel that was asked for, a node that drains, a lease that overran its limit although its runner
should have ended it, one that never came up. `call_due` says what to ask the executor next. A node that fell silent keeps its leases: they
may still run there, and running a job twice is worse than waiting. The agent proves them gone when it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from domain.states import JobTarget, LeaseEndCause
from store.leases import Change, OpenLease


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When to step in. `start_ms`: after the grant without running; `overrun_ms`: slack over limit and grace."""

    start_ms: int
    overrun_ms: int


class Call(StrEnum):
    """What an executor can be asked to do with one lease."""

    START = "start"
    STOP = "stop"


def step(lease: OpenLease, deadlines: Deadlines, *, now_ms: int) -> Change | None:
    """Return the stop that is due for `lease`, None when nothing is."""
    if lease.target == "stop" or lease.ended_at_ms is not None:
        return None
    cause = _cause_to_stop(lease, deadlines, now_ms)
    return None if cause is None else stop(lease, cause, now_ms=now_ms)


def stop(lease: OpenLease, cause: LeaseEndCause, *, now_ms: int, **told: Any) -> Change:
    """Return the change that writes down that `lease` shall stop, and why. `told` goes into the event."""
    asked_at_ms = max(now_ms, lease.running_at_ms or lease.granted_at_ms)  # stamps of a lease never go backwards
    fields = {"target": "stop", "stop_cause": cause.value, "stop_requested_at_ms": asked_at_ms}
    data: Mapping[str, Any] = {"attempt": lease.attempt, "cause": cause.value, **told}
    return Change(lease.id, lease=fields, events=(("lease_stop_requested", data),))


def _cause_to_stop(lease: OpenLease, deadlines: Deadlines, now_ms: int) -> LeaseEndCause | None:
    if lease.job_target == JobTarget.CANCEL:
        return LeaseEndCause.CANCELLED
    if any(part.is_draining for part in lease.parts):
        return LeaseEndCause.EVICTED
    if lease.running_at_ms is None:
        return LeaseEndCause.NEVER_STARTED if now_ms - lease.granted_at_ms >= deadlines.start_ms else None
    if now_ms - lease.running_at_ms >= lease.limit_ms + lease.grace_ms + deadlines.overrun_ms:
        return LeaseEndCause.TIME_LIMIT
    return None


def call_due(lease: OpenLease) -> Call | None:
    """Return what to ask the executor for an open lease: to start it until a handle is kept, to stop it until it is released."""
    if lease.target == "stop":
        return Call.STOP
    return Call.START if lease.handle is None else None


def is_overdue(lease: OpenLease, *, now_ms: int) -> bool:
    """Tell whether a stop has taken longer than the grace: a person should look at the node."""
    return lease.stop_requested_at_ms is not None and now_ms > lease.stop_requested_at_ms + lease.grace_ms
