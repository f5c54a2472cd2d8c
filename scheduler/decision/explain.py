"""Explain: what would happen to a job if it were submitted now. `POST /v1/estimates` asks; nothing is kept.

Owns no rule: it adds one job at the end of the queue and asks `decide` and `forecast`. Does not own prices or holds of money.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from domain.reasons import Reason
from scheduler.decision import nominate
from scheduler.decision.decide import decide
from scheduler.decision.disclosure import Disclosure
from scheduler.decision.forecast import forecast_jobs
from scheduler.decision.plan import Forecast
from scheduler.decision.snapshot import ClassKey, JobClass, PendingJob, Snapshot

_HYPOTHETICAL = ""  # no accepted job has an empty id


@dataclass(frozen=True, slots=True)
class Estimate:
    """Whether the job would start at once; if not, why it waits and the forecast, which is None when it can never start."""

    starts_now: bool
    reason: Reason | None = None
    forecast: Forecast | None = None


def explain(snapshot: Snapshot, key: ClassKey, *, grace_ms: int = 0) -> Estimate:
    """Return what the core would answer to one more job of class `key`, submitted now and last in line."""
    last_seq = max((job.seq for job_class in snapshot.classes for job in job_class.jobs), default=0)
    extra = PendingJob(_HYPOTHETICAL, last_seq + 1, snapshot.now_ms)
    classes = [item for item in snapshot.classes if item.key != key]
    same = [item for item in snapshot.classes if item.key == key]
    jobs = [job for item in same for job in item.jobs]
    grace_ms = max([grace_ms, *(item.grace_ms for item in same)])
    asked = replace(snapshot, classes=[*classes, JobClass(key, [*jobs, extra], grace_ms)])
    plan = decide(asked)
    if any(start.job == _HYPOTHETICAL for start in plan.starts):
        return Estimate(starts_now=True)
    nominated = next((item for item in plan.nominations if item.job == _HYPOTHETICAL), None)
    reason = nominate.reason(nominated) if nominated else next(item.reason for item in plan.reasons if item.class_key == key)
    forecasts = forecast_jobs(asked, snapshot.policy.forecast_depth, plan=plan)
    reason = Disclosure(snapshot).of(reason, key.tenant)
    return Estimate(starts_now=False, reason=reason, forecast=forecasts.get(_HYPOTHETICAL))
