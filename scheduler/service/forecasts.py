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
    _made_ms: int | None = None
    _rest_ms: int = 0
    _forecasts: Mapping[ClassKey, Forecast] = field(default_factory=dict)
    _covered: frozenset[ClassKey] = frozenset()

    async def newest(self, loaded: Loaded, plan: Plan, *, now_ms: int) -> Mapping[ClassKey, Forecast]:
        """Return the forecasts of the classes that wait by `plan`, made anew when that is due."""
        waiting = frozenset(item.class_key for item in plan.reasons)
        if waiting and self._is_due(waiting, now_ms):
            began = self.stopwatch()
            depth = self.settings.policy.forecast_depth
            self._forecasts = await asyncio.to_thread(forecasting.forecast, loaded.snapshot, depth, plan=plan)
            self._rest_ms = REST_PER_WALK * int((self.stopwatch() - began) * 1_000)
            self._made_ms, self._covered = now_ms, waiting
        return self._forecasts

    def _is_due(self, waiting: frozenset[ClassKey], now_ms: int) -> bool:
        if self._made_ms is None:
            return True
        age_ms = now_ms - self._made_ms
        if age_ms < 0:  # the clock was put back
            return True
        pause_ms = self.settings.forecast_every_ms if waiting <= self._covered else 0
        return age_ms >= max(pause_ms, self._rest_ms)
