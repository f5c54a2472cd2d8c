"""What the scheduler says about itself to Prometheus: a declarative list; labels are bounded by closed lists (reasons, causes, calls)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

CYCLE_SECONDS = Histogram("terrace_scheduler_cycle_seconds", "Wall time of one cycle: load, decide, apply.")
DECIDE_SECONDS = Histogram("terrace_scheduler_decide_seconds", "Wall time of the pure decision.")
STARTS = Counter("terrace_scheduler_starts_total", "Leases that were bound.")
PREEMPTIONS = Counter(
    "terrace_scheduler_preemptions_total", "Running jobs that were told to leave for another, by the right used.", ["cause"]
)
NOMINATED = Gauge("terrace_scheduler_nominated_jobs", "Jobs whose slices are held until others have left.")
FORECAST_ERROR_SECONDS = Histogram(
    "terrace_scheduler_forecast_error_seconds",
    "By how much a job started later (or, below zero, earlier) than the forecast that it last had.",
    buckets=(-86_400, -3_600, -600, -60, -10, 0, 10, 60, 600, 3_600, 86_400),
)
STALE_STARTS = Counter("terrace_scheduler_stale_starts_total", "Starts of a plan that were dropped because rows had moved on.")
OBSERVATIONS = Counter("terrace_scheduler_observations_total", "Observations that were applied.")
STOPS = Counter("terrace_scheduler_stops_total", "Leases that were told to stop.", ["cause"])
CALLS = Counter("terrace_scheduler_executor_calls_total", "Calls of the executor that answered.", ["call", "result"])
FAILURES = Counter("terrace_scheduler_cycle_failures_total", "Cycles that failed and were tried again.")
OPEN_LEASES = Gauge("terrace_scheduler_open_leases", "Leases that hold their slices.")
OVERDUE = Gauge("terrace_scheduler_overdue_leases", "Leases that were told to stop and are not gone after their grace.")
QUEUED = Gauge("terrace_scheduler_queued_jobs", "Jobs that wait, by the reason of their class.", ["reason"])
LEADING = Gauge("terrace_scheduler_leading", "1 while this process leads.")
