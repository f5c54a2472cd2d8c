"""From a plan to what the store applies: names of nodes, devices and jobs become rows; pure but for fresh identifiers.

Owns the translation and how many starts go into one command. Does not own guards (store/plans.py) or what happens to what went stale: the
next cycle decides again. The loop calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from domain.states import LeaseEndCause
from scheduler.decision.plan import Plan, Preemption, PreemptionCause, Start
from scheduler.decision.snapshot import Nomination, RunningJob
from scheduler.service.index import Index
from store.binding import SliceToBind, StartToBind
from store.plans import NominationToKeep, StopToRequest
from store.scheduling import Loaded, NominationRow

STARTS_PER_COMMAND = 1_000  # so that a long plan does not hold the database for as long as it takes


@dataclass(frozen=True, slots=True)
class Victim:
    """A preemption of a plan and the open lease that it concerns."""

    preemption: Preemption
    running: RunningJob

    def stop(self) -> StopToRequest:
        """Return what is written down."""
        cause = self.preemption.cause
        ends_as = LeaseEndCause.RECLAIMED if cause is PreemptionCause.RECLAIM else LeaseEndCause.PREEMPTED
        return StopToRequest(self.running.lease_id, ends_as.value, cause.value, self.preemption.beneficiary)


def victims(plan: Plan, loaded: Loaded) -> list[Victim]:
    """Return the victims of a plan with their leases, in its order."""
    if not plan.preemptions:
        return []
    running = {job.job: job for job in loaded.snapshot.running if not job.is_leaving}
    return [Victim(item, running[item.job]) for item in plan.preemptions]


def starts(plan: Plan, loaded: Loaded, *, new_id: Callable[[str], str], new_token: Callable[[], str]) -> Iterator[list[StartToBind]]:
    """Yield the starts of a plan in portions."""
    for first in range(0, len(plan.starts), STARTS_PER_COMMAND):
        yield [_start(start, loaded, new_id("lea"), new_token()) for start in plan.starts[first : first + STARTS_PER_COMMAND]]


def _start(start: Start, loaded: Loaded, lease_id: str, token: str) -> StartToBind:
    slices = tuple(
        SliceToBind(item.replica, loaded.node_ids[item.node], loaded.device_ids[item.node, item.device_index], item.milli_gpu)
        for item in start.slices
    )
    return StartToBind(
        lease_id=lease_id,
        token=token,
        job_id=start.job,
        attempt=start.attempt,
        flavor=start.flavor,
        milli_gpu=sum(item.milli_gpu for item in start.slices),
        slices=slices,
        node_ids=tuple(loaded.node_ids[node] for node in start.nodes),
        nodes=start.nodes,
    )


def nominations(plan: Plan, index: Index) -> list[NominationRow]:
    """Return the plan's nominations with the classes of their jobs; a job that is not queued any more has none."""
    classes = index.classes_of(plan)
    return [NominationRow(item, classes[item.job]) for item in plan.nominations if item.job in classes]


def to_keep(rows: Sequence[NominationRow], loaded: Loaded) -> list[NominationToKeep]:
    """Return the rows of nominations."""
    return [_to_keep(row.nomination, row.class_id, loaded) for row in rows]


def _to_keep(nomination: Nomination, class_id: str, loaded: Loaded) -> NominationToKeep:
    return NominationToKeep(
        job_id=nomination.job,
        attempt=nomination.attempt,
        class_id=class_id,
        flavor=nomination.flavor,
        slices=[(item.replica, loaded.device_ids[item.node, item.device_index], item.milli_gpu) for item in nomination.slices],
        node_ids=[loaded.node_ids[node] for node in nomination.nodes],
        victims=list(nomination.victims),
        releases_at_ms=nomination.releases_ms,
        expires_at_ms=nomination.expires_ms,
    )


def is_same(old: Sequence[NominationRow], new: Sequence[NominationRow]) -> bool:
    """Tell whether two lists hold the same for the same jobs. The key of a class is no part of a row."""
    return len(old) == len(new) and all(
        a.class_id == b.class_id and _fields(a.nomination) == _fields(b.nomination) for a, b in zip(old, new, strict=True)
    )


def _fields(item: Nomination) -> tuple[object, ...]:
    return (item.job, item.attempt, item.slices, item.nodes, item.flavor, item.victims, item.releases_ms, item.expires_ms)
