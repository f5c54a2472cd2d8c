"""Nominations: places held for jobs that wait for others to leave.

Owns what becomes of the snapshot's nominations before anybody else is considered: a job whose place is free starts there, one whose
place is not free yet keeps it, and what expired, was cancelled or lost a node is held no longer. Does not own who is nominated (decide.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from scheduler.decision import gate
from scheduler.decision.fit import Fleet, Member
from scheduler.decision.gate import Option
from scheduler.decision.snapshot import ClassKey, JobClass, Nomination, PendingJob, Snapshot


@dataclass(frozen=True, slots=True)
class Nominee:
    """A job with a valid nomination, and what it would take."""

    nomination: Nomination
    key: ClassKey
    job: PendingJob
    option: Option
    members: tuple[Member, ...]


def nominees(snapshot: Snapshot, fleet: Fleet) -> Iterator[Nominee]:
    """Yield the jobs whose nominations still hold, in the order in which they were nominated."""
    for nomination in snapshot.nominations:
        if nomination.expires_ms <= snapshot.now_ms:
            continue
        found = _pending(snapshot, nomination)
        if found is None:
            continue
        key, job = found
        options = gate.options(snapshot, key)
        option = None if isinstance(options, Reason) else next((item for item in options if item.flavor == nomination.flavor), None)
        members = fleet.members_of(key.shape, nomination.slices, nomination.nodes)
        if option is not None and len(members) == key.shape.replicas and _is_usable(fleet, members):
            yield Nominee(nomination, key, job, option, tuple(members))


def _pending(snapshot: Snapshot, nomination: Nomination) -> tuple[ClassKey, PendingJob] | None:
    for item in _classes(snapshot, nomination.key):
        for job in item.jobs:
            if job.job == nomination.job:
                return (item.key, job) if job.attempt == nomination.attempt else None
    return None


def _classes(snapshot: Snapshot, key: ClassKey | None) -> Iterator[JobClass]:
    return (item for item in snapshot.classes if key is None or item.key == key)


def _is_usable(fleet: Fleet, members: list[Member]) -> bool:
    """A place is lost when its node was drained or one of its devices failed."""
    layout = fleet.layout
    return all(layout.schedulable >> member.node & 1 and not member.devices & ~layout.usable[member.node] for member in members)


def reason(nomination: Nomination) -> Reason:
    """Return why a nominated job waits."""
    data: dict[str, ReasonValue] = {
        "victims": list(nomination.victims),
        "releases_by_ms": nomination.releases_ms,
        "held_until_ms": nomination.expires_ms,
    }
    return Reason(ReasonCode.WAITING_FOR_PREEMPTED, data, Unblock.ANY_JOB_ENDS)
