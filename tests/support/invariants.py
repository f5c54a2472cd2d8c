"""What must always be true of the rows (design.md section 4), looked at from outside: no code of the scheduler or of billing is asked.

`await check(store)` raises with every violation that it finds. Call it after each step of a test of the service; it reads all rows, so
keep those worlds small. Each rule is a function from the rows to sentences, and tests/store/test_invariants.py breaks each of them once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection

from store.engine import Store
from tests.support.quota_rules import starts_stay_within_quota
from tests.support.rows_of_a_database import Row, RowsOf

TERMINAL = {"succeeded", "failed", "cancelled"}
HOLDING = {"starting", "running"}


def slices_are_claimed_once(rows: RowsOf) -> Iterator[str]:
    """Invariant 1: the claims are exactly the slices of the open leases, each on its device and in the device's mode."""
    open_leases = {lease.id for lease in rows.lease if lease.released_at_ms is None}
    devices = {device.id: device for device in rows.device}
    expected = {(item.lease_id, item.ordinal, item.device_id) for item in rows.lease_slice if item.lease_id in open_leases}
    claimed = {(claim.lease_id, claim.ordinal, claim.device_id) for claim in rows.device_claim}
    yield from (f"slice {item} of an open lease has no claim" for item in sorted(expected - claimed))
    yield from (f"claim {item} belongs to no slice of an open lease" for item in sorted(claimed - expected))
    for item in rows.lease_slice:
        device = devices[item.device_id]
        if item.node_id != device.node_id:
            yield f"slice {item.ordinal} of {item.lease_id} names node {item.node_id}, its device is on {device.node_id}"
        if item.lease_id in open_leases and item.mode != device.mode:
            yield f"slice {item.ordinal} of {item.lease_id} is {item.mode}, its device is {device.mode}"


def slices_never_overlap_in_time(rows: RowsOf) -> Iterator[str]:
    """Invariant 7: over all time, a whole device is in one lease at a time. A lease without an end goes on for ever."""
    leases = {lease.id: lease for lease in rows.lease}
    by_device: dict[str, list[tuple[int, float, str]]] = {}
    for item in rows.lease_slice:
        lease = leases[item.lease_id]
        until = float("inf") if lease.released_at_ms is None else lease.released_at_ms
        by_device.setdefault(item.device_id, []).append((lease.granted_at_ms, until, lease.id))
    for device, held in sorted(by_device.items()):
        for (_, until, first), (start, _, second) in pairwise(sorted(held)):
            if start < until:
                yield f"device {device} is in {first} and {second} at once"


def gangs_are_whole(rows: RowsOf) -> Iterator[str]:
    """Invariant 2: a lease has all the slices that its job asked for, each replica on one node, all on one site."""
    jobs, nodes = {job.id: job for job in rows.job}, {node.id: node for node in rows.node}
    for lease in rows.lease:
        job = jobs[lease.job_id]
        slices = [item for item in rows.lease_slice if item.lease_id == lease.id]
        parts = {part.node_id for part in rows.lease_node if part.lease_id == lease.id}
        per_replica = Counter(item.replica for item in slices)
        wanted = {replica: job.slices_per_replica for replica in range(job.replicas) if job.slices_per_replica}
        if dict(per_replica) != wanted:
            yield f"lease {lease.id} has slices {dict(per_replica)}, its job asks for {wanted}"
        if (lease.slices, lease.milli_gpu) != (len(slices), sum(item.milli_gpu for item in slices)):
            yield f"lease {lease.id} says {lease.slices} slices of {lease.milli_gpu}, its rows differ"
        if len({(item.replica, item.node_id) for item in slices}) != len(per_replica):
            yield f"lease {lease.id} splits a replica over nodes"
        if not parts or not {item.node_id for item in slices} <= parts:
            yield f"lease {lease.id} has slices on nodes that are not its parts"
        if len({nodes[node].site for node in parts}) > 1:
            yield f"lease {lease.id} spans sites"


def jobs_are_in_one_state(rows: RowsOf) -> Iterator[str]:
    """Invariant 4: a job's state agrees with its attempts, and it has one terminal event when and only when it has ended."""
    for job in rows.job:
        attempts = sorted((attempt for attempt in rows.attempt if attempt.job_id == job.id), key=lambda attempt: attempt.number)
        still_open = [attempt.number for attempt in attempts if attempt.ended_at_ms is None]
        if [attempt.number for attempt in attempts] != list(range(1, job.attempt + 1)):
            yield f"job {job.id} is at attempt {job.attempt} and has {[item.number for item in attempts]}"
        requeued = {json.loads(event.data)["attempt"] for event in rows.event if event.job_id == job.id and event.kind == "job_queued"}
        failed = [attempt.number for attempt in attempts if _counts(attempt) and attempt.number in requeued]
        if len(failed) != job.failed_attempts or job.failed_attempts >= job.maximum_attempts:
            yield f"job {job.id} has {job.failed_attempts} failed attempts of {job.maximum_attempts}, its attempts {failed} count"
        if still_open != ([job.attempt] if job.state in HOLDING else []):
            yield f"job {job.id} is {job.state} with open attempts {still_open}"
        if (job.ended_at_ms is not None) != (job.state in TERMINAL):
            yield f"job {job.id} is {job.state} and ended at {job.ended_at_ms}"
        if (job.started_at_ms is None) != (job.state != "running") and job.state not in TERMINAL:
            yield f"job {job.id} is {job.state} and started at {job.started_at_ms}"
        if job.state == "succeeded" and (not attempts or attempts[-1].outcome != "completed"):
            yield f"job {job.id} succeeded, its last attempt did not"
        if job.state == "queued" and job.target == "cancel":
            yield f"job {job.id} is queued although it is to be cancelled"
        yield from _events_of(job, [event.kind for event in rows.event if event.job_id == job.id])


def _counts(attempt: Row) -> bool:
    """Tell whether an attempt counts towards its job's maximum: not one that was stopped for another job or by a drain."""
    is_over = attempt.ended_at_ms is not None
    return is_over and (attempt.failure_class is not None or attempt.outcome in ("never_started", "node_lost"))


def _events_of(job: Row, kinds: list[str]) -> Iterator[str]:
    ends = [kind for kind in kinds if kind.removeprefix("job_") in TERMINAL]
    if ends != ([f"job_{job.state}"] if job.state in TERMINAL else []):
        yield f"job {job.id} is {job.state} and tells of the ends {ends}"
    if kinds.count("job_submitted") != 1:
        yield f"job {job.id} was submitted {kinds.count('job_submitted')} times"


def attempts_have_one_lease_each(rows: RowsOf) -> Iterator[str]:
    """A lease is bound to one attempt from start to end, and both end together with one cause."""
    attempts = {(attempt.job_id, attempt.number): attempt for attempt in rows.attempt}
    leases = {(lease.job_id, lease.attempt): lease for lease in rows.lease}
    for key in sorted(attempts.keys() ^ leases.keys()):
        yield f"attempt {key} and its lease do not both exist"
    for key in attempts.keys() & leases.keys():
        attempt, lease = attempts[key], leases[key]
        told = (attempt.lease_id, attempt.created_at_ms, attempt.started_at_ms, attempt.ended_at_ms, attempt.outcome)
        true = (lease.id, lease.granted_at_ms, lease.running_at_ms, lease.ended_at_ms, lease.end_cause)
        if told != true:
            yield f"attempt {key} says {told}, its lease {true}"


def leases_go_forward(rows: RowsOf) -> Iterator[str]:
    """granted <= running <= ended <= released; an end has a cause; slices are free when and only when every node proved them free."""
    for lease in rows.lease:
        stamps = [lease.granted_at_ms, lease.running_at_ms, lease.ended_at_ms, lease.released_at_ms]
        known = [stamp for stamp in stamps if stamp is not None]
        if known != sorted(known):
            yield f"lease {lease.id} goes backwards: {stamps}"
        if (lease.end_cause is None) != (lease.ended_at_ms is None):
            yield f"lease {lease.id} ended at {lease.ended_at_ms} for {lease.end_cause}"
        if lease.released_at_ms is not None and lease.ended_at_ms is None:
            yield f"lease {lease.id} was released without an end"
        proven = [bool(part.is_gone) for part in rows.lease_node if part.lease_id == lease.id]
        if all(proven) != (lease.released_at_ms is not None):
            yield f"lease {lease.id} released at {lease.released_at_ms}, proven gone on {sum(proven)} of {len(proven)} nodes"


def lines_are_the_leases(rows: RowsOf) -> Iterator[str]:
    """Invariants 7 and 8: the lines of a rated lease tile [granted, ended) and add up to it; credits mirror their charges."""
    for lease in rows.lease:
        lines = [line for line in rows.usage_line if line.lease_id == lease.id]
        charges = sorted((line for line in lines if line.kind == "lease"), key=lambda line: line.start_ms)
        if lease.rated_at_ms is None:
            if lines:
                yield f"lease {lease.id} has lines and is not rated"
            continue
        edges = [lease.granted_at_ms, *(line.end_ms for line in charges)]
        if [line.start_ms for line in charges] != edges[:-1] or edges[-1] != lease.ended_at_ms:
            yield f"the lines of lease {lease.id} do not tile [{lease.granted_at_ms}, {lease.ended_at_ms})"
        if sum(line.milli_gpu_ms for line in charges) != lease.milli_gpu * (lease.ended_at_ms - lease.granted_at_ms):
            yield f"the lines of lease {lease.id} do not add up to its interval"
        for line in charges:
            exact = line.units_per_hour * line.slices * (line.end_ms - line.start_ms)
            if 2 * abs(line.amount_units * 3_600_000 - exact) > 3_600_000:
                yield f"line {line.id} costs {line.amount_units}"
        amounts = {(line.start_ms, line.end_ms): line.amount_units for line in charges}
        for line in lines:
            if line.kind == "credit" and (line.milli_gpu_ms or line.amount_units != -amounts.get((line.start_ms, line.end_ms), 0)):
                yield f"credit {line.id} does not mirror its charge"


def classes_describe_their_jobs(rows: RowsOf) -> Iterator[str]:
    """Invariant 5 rests on it: a job reads its reason from a class of its own tenant, project, limit and priority."""
    classes = {item.id: item for item in rows.job_class}
    for job in rows.job:
        own = classes[job.class_id]
        told = (own.tenant_id, own.project_id, own.limit_ms, own.priority)
        if told != (job.tenant_id, job.project_id, job.limit_ms, job.priority):
            yield f"job {job.id} is in a class of {told}"


RULES: tuple[Callable[[RowsOf], Iterator[str]], ...] = (
    slices_are_claimed_once,
    slices_never_overlap_in_time,
    gangs_are_whole,
    jobs_are_in_one_state,
    attempts_have_one_lease_each,
    leases_go_forward,
    lines_are_the_leases,
    classes_describe_their_jobs,
    starts_stay_within_quota,
)


@dataclass(frozen=True)
class Violations:
    """Everything that is not as it must be, in one consistent state of the database."""

    def fetch(self, connection: Connection, /) -> list[str]:
        """Return sentences, each with its rule."""
        found = RowsOf.read(connection)
        return [f"{rule.__name__}: {sentence}" for rule in RULES for sentence in rule(found)]


async def check(store: Store) -> None:
    """AssertionError with every violation."""
    violations = await store.read(Violations())
    assert not violations, "\n".join(violations)


def check_blocking(store: Store) -> None:
    """The same for a test without an event loop."""
    violations = store.read_blocking(Violations())
    assert not violations, "\n".join(violations)
