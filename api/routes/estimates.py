"""Estimates: what would happen to a job if it were submitted now. Nothing is kept.

Runs the decision core itself on a snapshot from rows, so it is rate-limited per tenant, and few run at once. The amount is what a lease
of the whole limit and grace would hold at the list price of the dearest flavor that the job may get; the charge is what was used.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Annotated, Any

from fastapi import Depends, Request

from api import answers, clock, problem_codes, routing, submission
from api.permissions import Needs
from api.problems import TooManyRequestsError
from billing.calc.rating import cost_units
from domain.reasons import Reason
from scheduler.decision import explain
from scheduler.decision.snapshot import ClassKey, Policy
from store import fleet, quota_tree, scheduling, shapes
from store.catalog import TierTerms
from store.identity import Principal
from store.jobs import NewJob
from terrace.models.jobs import EstimateAnswer, JobSpec

router = routing.router("/v1/estimates", "estimates")

WINDOW_SECONDS = 60.0
TENANTS_MAXIMUM = 10_000

Estimates = Annotated[Principal, Depends(Needs("estimates:write"))]


class RateLimit:
    """At most `per_minute` estimates of one tenant in any minute, counted in this process."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, tenant_id: str) -> None:
        """Count one more; TooManyRequestsError over the limit."""
        now = clock.monotonic()
        times = self._times.setdefault(tenant_id, deque())
        self._times.move_to_end(tenant_id)
        while times and now - times[0] >= WINDOW_SECONDS:
            times.popleft()
        if len(times) >= self._per_minute:
            wait_seconds = int(WINDOW_SECONDS - (now - times[0])) + 1
            message = f"at most {self._per_minute} estimates a minute; try again in {wait_seconds} s"
            raise TooManyRequestsError("estimates_rate", message, limit=self._per_minute, retry_after_seconds=wait_seconds)
        times.append(now)
        while len(self._times) > TENANTS_MAXIMUM:
            self._times.popitem(last=False)


@router.post("", response_model=EstimateAnswer, responses=problem_codes.responses(*problem_codes.SUBMISSION, "estimates_rate"))
async def estimate(request: Request, principal: Estimates, sent: JobSpec) -> Any:
    """Answer what the scheduler would say to this job now, and what it would hold of money at most."""
    state = request.app.state
    tenant_id = principal.tenant_id or ""
    state.estimates_rate.count(tenant_id)
    catalog = await state.catalogs.fleet(is_fresh=True)
    tenant = await state.catalogs.tenant(tenant_id, is_fresh=True)
    spans = state.settings.gangs_span_nodes
    terms = submission.Terms(tenant_id, principal.user_id, gangs_span_nodes=spans)
    job = submission.prepare([sent], catalog, tenant, terms, is_batch=False, new_id=clock.new_id)[0]
    tier = catalog.tiers[job.tier]
    now_ms = clock.now_ms()
    async with state.estimates_at_once:
        loaded = await state.store.read(scheduling.LoadSnapshot(now_ms, Policy(spans_nodes=spans)))
        outcome = await asyncio.to_thread(explain.explain, loaded.snapshot, _key(loaded, job, tenant_id, tier), grace_ms=tier.grace_ms)
    flavors = {item.name: item for item in await state.store.read(fleet.Flavors(state.settings.currency, now_ms))}
    held_ms = job.job_class.limit_ms + tier.grace_ms
    return _answer(state.settings.currency, job, outcome, flavors, now_ms=now_ms, held_ms=held_ms)


def _key(loaded: scheduling.Loaded, job: NewJob, tenant_id: str, tier: TierTerms) -> ClassKey:
    made = job.job_class
    leaf = quota_tree.leaf(loaded.snapshot.tree, tenant_id, made.project_id)
    return ClassKey(
        tenant=leaf,
        shape=job.shape,
        limit_ms=made.limit_ms,
        priority=made.priority,
        project=made.project_id,
        user=made.user_id,
        is_preemptible=tier.is_preemptible,
        where=shapes.place_of(made.place),
        tier=tier.name,
    )


def _answer(
    currency: str, job: NewJob, outcome: explain.Estimate, flavors: dict[str, fleet.FlavorView], *, now_ms: int, held_ms: int
) -> dict[str, Any]:
    prices = [flavors[name].price_units_per_hour or 0 for name in job.shape.flavors if name in flavors]
    per_hour = max(prices, default=0)  # whichever it gets, it costs no more
    forecast = outcome.forecast
    return {
        "starts_now": outcome.starts_now,
        "reason": _reason(outcome.reason, now_ms) if outcome.reason else None,
        "forecast": {
            "start_at": answers.moment(forecast.start_ms),
            "not_before": answers.moment(forecast.not_before_ms),
            "computed_at": clock.rfc3339(now_ms),
        }
        if forecast
        else None,
        "currency": currency,
        "hold_amount_units": cost_units(units_per_hour=per_hour, slices=job.shape.slices, length_ms=held_ms),
        "price_units_per_hour": per_hour,
        "limit_seconds": -(-job.job_class.limit_ms // 1_000),
    }


def _reason(reason: Reason, now_ms: int) -> dict[str, Any]:
    return {
        "code": reason.code.value,
        "data": dict(reason.data),
        "unblocks_when": reason.unblocks_when.value,
        "answered_at": clock.rfc3339(now_ms),
    }
