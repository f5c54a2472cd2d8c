"""Settings of the scheduler service: every limit with its unit and who should change it."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.decision.snapshot import Policy


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Everything that the loop needs to know before it starts. Intervals in milliseconds."""

    policy: Policy = field(default_factory=lambda: Policy(spans_nodes=False))  # operators; gangs over machines come with multi-node leases
    idle_ms: int = 1_000  # longest time between two looks when nothing changes; nobody needs to
    retry_ms: int = 1_000  # pause after a cycle that failed; nobody needs to
    term_ms: int = (
        15_000  # how long a silent leader keeps the lead; operators with several schedulers, whose clocks must agree within a third of it
    )
    start_deadline_ms: int = 600_000  # a lease not running after this is stopped and tried again; above agents' start_ms_maximum; operators
    overrun_ms: int = 60_000  # how long over limit and grace before the scheduler steps in; nobody needs to
    node_lost_after_ms: int = 30_000  # silence of an agent after which its node gets nothing new; operators
    forecast_every_ms: int = 1_000  # the forecast's own, slower loop; operators of very long queues
    forecast_patience_ms: int = 200  # how long a cycle waits for a forecast that has just begun; nobody needs to
    memory_every_ms: int = 60_000  # how often the memory of fair sharing is kept; a crash forgets at most so much; nobody needs to
    status_every_ms: int = 2_000  # how often the executor is asked how far its leases are; nobody needs to
    stop_again_ms: int = 10_000  # a stop that shows no effect is asked again after this; nobody needs to
    call_ms_maximum: int = 30_000  # longest time that one call of an executor may take; operators with a slow cluster API
    call_patience_ms: int = 200  # how long a cycle waits for new calls before it goes on without them; nobody needs to
