"""One step per open lease towards its target: a pure choice, made every cycle.

Covers what no observation says: a cancel that was asked for, a node that drains, a lease that overran its limit although its runner should
have ended it, one that never came up. A node that fell silent keeps its leases: they may still run there, and running a job twice is worse
than waiting. The agent proves them gone when it returns.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.states import JobTarget, LeaseEndCause
from store.leases import Change, OpenLease


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When to step in. `start_ms`: after the grant without running; `overrun_ms`: slack over limit and grace."""

    start_ms: int
    overrun_ms: int


def step(lease: OpenLease, deadlines: Deadlines, *, now_ms: int) -> Change | None:
    """Return the stop that is due for `lease`, None when nothing is."""
    if lease.target == "stop" or lease.ended_at_ms is not None:
        return None
    cause = _cause_to_stop(lease, deadlines, now_ms)
    if cause is None:
        return None
    fields = {"target": "stop", "stop_cause": cause.value, "stop_requested_at_ms": now_ms}
    return Change(lease.id, lease=fields, events=(("lease_stop_requested", {"attempt": lease.attempt, "cause": cause.value}),))


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
