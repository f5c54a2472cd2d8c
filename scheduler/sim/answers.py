"""Answers as printed: one decision on a scenario, in the file format's own units and names.

Owns `terraced decide`: build the world, decide once, and write the plan with seconds and milli-GPU. Does not own tables or
exit codes (terraced/scenario_commands.py). Jobs that are submitted after `now` are left out: only a simulation reaches them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from domain.reasons import Reason, ReasonCode, Unblock
from domain.slices import Slice
from scheduler.decision import nominate
from scheduler.decision.decide import decide
from scheduler.decision.forecast import forecast_jobs
from scheduler.decision.plan import Forecast, Start
from scheduler.sim import events, support
from scheduler.sim.scenario import VERSION, Scenario
from scheduler.sim.world import Job, World

MILLISECONDS_PER_SECOND = 1_000


def answer(scenario: Scenario) -> dict[str, Any]:
    """Decide once on `scenario` and return what `--format json` prints; `UnsupportedError` when the core cannot decide it yet."""
    support.check(scenario)
    world = World(scenario)
    for event in sorted((item for item in scenario.events if item.at_ms <= scenario.now_ms), key=lambda item: item.at_ms):
        for evicted in events.apply(world, event):
            world.enqueue(world.jobs[evicted.job], attempt=evicted.attempt + 1)
    blocked: list[Job] = []
    for job in world.jobs.values():
        if job.id in world.running or job.submitted_ms > scenario.now_ms or _is_queued(world, job):
            continue
        if job.depends_on:
            blocked.append(job)
        else:
            world.enqueue(job, attempt=1)
    snapshot = world.snapshot(scenario.now_ms)
    plan = decide(snapshot)
    forecasts = forecast_jobs(snapshot, world.policy.forecast_depth, plan=plan)
    started = {start.job for start in plan.starts}
    reasons = {item.class_key: item.reason for item in plan.reasons}
    nominated = {item.job: nominate.reason(item) for item in plan.nominations}
    waiting = [
        (job, nominated.get(job.job) or reasons[key]) for key, jobs in world.waiting().items() for job in jobs if job.job not in started
    ]
    entries = [(pending.seq, pending.job, reason, forecasts.get(pending.job)) for pending, reason in waiting]
    for job in blocked:
        reason = Reason(ReasonCode.DEPENDENCY, {"depends_on": list(job.depends_on)}, Unblock.DEPENDENCY_ENDS)
        entries.append((job.seq, job.id, reason, None))
    return {
        "scenario": VERSION,
        "now": seconds(scenario.now_ms),
        "starts": [start_entry(start) for start in plan.starts],
        "preempt": [{"job": item.job, "cause": item.cause.value, "for": item.beneficiary} for item in plan.preemptions],
        "waiting": [_waiting_entry(job, reason, forecast) for _, job, reason, forecast in sorted(entries, key=lambda entry: entry[0])],
    }


def _is_queued(world: World, job: Job) -> bool:
    return any(pending.job == job.id for pending in world.waiting().get(job.key, ()))


def seconds(time_ms: int) -> float:
    """Return milliseconds as the seconds that a file shows."""
    return time_ms / MILLISECONDS_PER_SECOND


def start_entry(start: Start) -> dict[str, Any]:
    """Return a start as printed."""
    return {
        "job": start.job,
        "attempt": start.attempt,
        "borrowed": dict(start.borrowed),
        "slices": slice_entries(start.slices, start.nodes),
    }


def slice_entries(slices: Iterable[Slice], nodes: Iterable[str]) -> list[dict[str, Any]]:
    """Return slices as printed. A replica without GPUs has one entry without a device, so that its node is seen."""
    entries: list[dict[str, Any]] = [
        {"replica": piece.replica, "node": piece.node, "device": piece.device_index, "milli_gpu": piece.milli_gpu} for piece in slices
    ]
    if entries:
        return entries
    return [{"replica": replica, "node": node, "device": None, "milli_gpu": 0} for replica, node in enumerate(nodes)]


def _waiting_entry(job: str, reason: Reason, forecast: Forecast | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "job": job,
        "code": reason.code.value,
        "data": dict(reason.data),
        "unblocks_when": reason.unblocks_when.value,
        "forecast_start": None,
    }
    if forecast is not None and forecast.start_ms is not None:
        entry["forecast_start"] = seconds(forecast.start_ms)
    elif forecast is not None and forecast.not_before_ms is not None:
        entry["not_before"] = seconds(forecast.not_before_ms)
    return entry
