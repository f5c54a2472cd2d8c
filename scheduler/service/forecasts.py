"""The forecast's own, slower loop: when to walk into the future again, and the newest answer until then.

Owns the pace and keeps the last answer. Does not own the walk, which is scheduler/decision/forecast.py. Decisions come first: whatever a
walk takes, at most a tenth of the time is spent walking. Within that, a class that has no forecast yet gets one at once. The loop calls it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scheduler.decision import forecast as forecasting
from scheduler.decision.plan import Forecast, Plan
from scheduler.decision.snapshot import ClassKey
from scheduler.service.settings import SchedulerSettings
from store.scheduling import Loaded

REST_PER_WALK = 9  # a walk of one second is followed by nine without one


@dataclass
class Forecaster:
    """Keeps the newest forecasts. Forget it and the next cycle makes them anew."""

    settings: SchedulerSettings
    stopwatch: Callable[[], float] = time.monotonic
    _made_seconds: float | None = None
    _rest_seconds: float = 0.0
    _forecasts: Mapping[ClassKey, Forecast] = field(default_factory=dict)
    _covered: frozenset[ClassKey] = frozenset()

    async def newest(self, loaded: Loaded, plan: Plan) -> Mapping[ClassKey, Forecast]:
        """Return the forecasts of the classes that wait by `plan`, made anew when that is due."""
        waiting = frozenset(item.class_key for item in plan.reasons)
        if waiting and self._is_due(waiting):
            began_seconds = self.stopwatch()
            depth = self.settings.policy.forecast_depth
            self._forecasts = await asyncio.to_thread(forecasting.forecast, loaded.snapshot, depth, plan=plan)
            self._made_seconds, self._covered = self.stopwatch(), waiting
            self._rest_seconds = REST_PER_WALK * (self._made_seconds - began_seconds)
        return self._forecasts

    def _is_due(self, waiting: frozenset[ClassKey]) -> bool:
        if self._made_seconds is None:
            return True
        pause_seconds = self.settings.forecast_every_ms / 1_000 if waiting <= self._covered else 0.0
        return self.stopwatch() - self._made_seconds >= max(pause_seconds, self._rest_seconds)
