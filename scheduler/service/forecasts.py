"""The forecast's own, slower loop: when to walk into the future again, and the newest answer until then.

Owns the pace and keeps the last answer. Does not own the walk, which is scheduler/decision/forecast.py. Decisions come first: a walk goes
on beside them on a frozen snapshot, and whatever it takes, at most a tenth of the time is spent walking. Within that, a class that has no
forecast yet gets one at once. The loop calls it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scheduler.decision import forecast as forecasting
from scheduler.decision.plan import Forecast, Plan
from scheduler.decision.snapshot import ClassKey, Snapshot
from scheduler.service.settings import SchedulerSettings

REST_PER_WALK = 9  # a walk of one second is followed by nine without one


@dataclass
class Forecaster:
    """Keeps the newest forecasts. Forget it and the next cycle makes them anew."""

    settings: SchedulerSettings
    stopwatch: Callable[[], float] = time.monotonic
    newest: Mapping[ClassKey, Forecast] = field(default_factory=dict)
    _made_seconds: float | None = None
    _rest_seconds: float = 0.0
    _covered: frozenset[ClassKey] = frozenset()
    _walk: asyncio.Task[None] | None = None

    def is_due(self, plan: Plan) -> bool:
        """Tell whether a walk should begin now for the classes that wait by `plan`."""
        waiting = _waiting(plan)
        if not waiting or self._walk is not None:
            return False
        if self._made_seconds is None:
            return True
        pause_seconds = self.settings.forecast_every_ms / 1_000 if waiting <= self._covered else 0.0
        return self.stopwatch() - self._made_seconds >= max(pause_seconds, self._rest_seconds)

    def begin(self, snapshot: Snapshot, plan: Plan) -> None:
        """Begin a walk from `snapshot`, which nobody changes any more, and the plan that was made from it."""
        self._walk = asyncio.create_task(self._make(snapshot, plan))

    async def settle(self) -> None:
        """Wait a little for a walk under way; one that failed raises here."""
        if self._walk is None:
            return
        done, _ = await asyncio.wait([self._walk], timeout=self.settings.forecast_patience_ms / 1_000)
        if done:
            walk, self._walk = self._walk, None
            walk.result()

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        """The walk that goes on, if any: its end is worth a cycle."""
        return [] if self._walk is None else [self._walk]

    def forget(self) -> None:
        """Drop everything: this process leads no more."""
        if self._walk is not None:
            self._walk.cancel()
        self._walk = self._made_seconds = None
        self.newest, self._covered, self._rest_seconds = {}, frozenset(), 0.0

    async def _make(self, snapshot: Snapshot, plan: Plan) -> None:
        began_seconds = self.stopwatch()
        self.newest = await asyncio.to_thread(forecasting.forecast, snapshot, snapshot.policy.forecast_depth, plan=plan)
        self._made_seconds, self._covered = self.stopwatch(), _waiting(plan)
        self._rest_seconds = REST_PER_WALK * (self._made_seconds - began_seconds)


def _waiting(plan: Plan) -> frozenset[ClassKey]:
    return frozenset(item.class_key for item in plan.reasons)
