"""Forecast: when waiting jobs would start, if every running job used its whole time limit and nobody else came.

Its own pure function, on a slower loop than `decide`: it walks through the future once per class. Owns no rule: order comes from
the plan, places and quota from the same gates. Limits are upper bounds, so a forecast start is late rather than early; jobs
beyond `depth`, and those that do not fit within the walk, get the first time at which anything comes back ("not before").
Jobs that can never start (invalid, not permitted, exceeds maximum) have no forecast.
"""

from __future__ import annotations

from collections.abc import Mapping

from domain.reasons import Reason, ReasonCode
from scheduler.decision import backfill, gate
from scheduler.decision.backfill import Future, Lease
from scheduler.decision.decide import decide
from scheduler.decision.plan import Forecast, Plan, Start
from scheduler.decision.snapshot import ClassKey, JobClass, Nomination, Snapshot, model_of, usage_of

JOBS_MAXIMUM = 1_000  # jobs that get a start time of their own in one forecast, over all classes

_NEVER = frozenset({ReasonCode.INVALID, ReasonCode.NOT_PERMITTED, ReasonCode.EXCEEDS_MAXIMUM})


def forecast(snapshot: Snapshot, depth: int, *, plan: Plan | None = None) -> Mapping[ClassKey, Forecast]:
    """Return the forecast of the first waiting job of each class. `plan` is the decision on this snapshot, made here when missing."""
    plan = plan or decide(snapshot)
    by_job = forecast_jobs(snapshot, depth, plan=plan)
    started = {start.job for start in plan.starts}
    first: dict[ClassKey, Forecast] = {}
    for job_class in snapshot.classes:
        for job in job_class.jobs:
            if job.job not in started:
                if job.job in by_job:
                    first[job_class.key] = by_job[job.job]
                break
    return first


def forecast_jobs(snapshot: Snapshot, depth: int, *, plan: Plan) -> Mapping[str, Forecast]:
    """Return the forecast of every job that `plan` leaves waiting; classes in the order in which the plan considered them."""
    classes = {job_class.key: job_class for job_class in snapshot.classes}
    future = _after(snapshot, plan, classes)
    left = JOBS_MAXIMUM
    started = {start.job for start in plan.starts}
    found = {item.job: Forecast(start_ms=max(item.releases_ms, snapshot.now_ms)) for item in plan.nominations}
    considered = 0
    for class_reason in plan.reasons:
        if class_reason.reason.code in _NEVER:
            continue
        waiting = [job.job for job in classes[class_reason.class_key].jobs if job.job not in started and job.job not in found]
        starts_ms: list[int] = []
        if considered < depth and left > 0:
            considered += 1
            options = gate.options(snapshot, class_reason.class_key)
            if not isinstance(options, Reason):
                new = future.hold(class_reason.class_key, options, jobs=min(left, len(waiting)))
                starts_ms = [hold.start_ms for hold in new]
                left -= len(starts_ms)
        for at, job in enumerate(waiting):
            if at < len(starts_ms):
                found[job] = Forecast(start_ms=starts_ms[at])
            else:
                found[job] = Forecast(not_before_ms=starts_ms[-1] if starts_ms else future.first_release_ms)
    return found


def _after(snapshot: Snapshot, plan: Plan, classes: Mapping[ClassKey, JobClass]) -> Future:
    """Return the future as it looks once the plan's starts and nominations hold their slices and those who leave have left."""
    fleet, tree = snapshot.fleet.copy(), snapshot.tree.copy()
    leases = backfill.leases_of(snapshot)
    victims = {item.job for item in plan.preemptions}
    for job in snapshot.running:
        if job.is_leaving or job.job in victims:
            fleet.release(job.shape, job.slices, job.nodes)
            if job.tenant in tree:
                tree.remove(job.tenant, usage_of(job.shape, model_of(job.flavor, snapshot.flavors)))
            leases.pop(job.job, None)
    placing = backfill.placing_of(snapshot)
    key_of = {job.job: (key, job.seq) for key, job_class in classes.items() for job in job_class.jobs}
    begins: list[tuple[Start | Nomination, int]] = [(start, snapshot.now_ms) for start in plan.starts]
    begins += [(item, max(item.releases_ms, snapshot.now_ms)) for item in plan.nominations]
    for item, begin_ms in begins:
        key, seq = key_of[item.job]
        usage = usage_of(key.shape, model_of(item.flavor, snapshot.flavors))
        members = fleet.members_of(key.shape, item.slices, item.nodes)
        fleet.take(members, key.shape)
        tree.add(key.tenant, usage)
        leases[item.job] = Lease(begin_ms + placing.lasts_ms(key), seq, key.tenant, key.shape, members, usage)
    return Future(fleet, list(leases.values()), now_ms=snapshot.now_ms, placing=placing, tree=tree)
