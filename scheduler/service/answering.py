"""Reasons and forecasts: what each class of queued jobs is told, written when it changes; and how good forecasts were.

Owns the comparison with what the rows say, and the account of forecasts that jobs were given. Does not own reasons (the core's) or the
walk into the future (forecasts.py). Jobs of a suspended tenant are told that they are held. The loop calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from domain.reasons import ReasonCode, Unblock
from scheduler.decision.disclosure import Disclosure
from scheduler.decision.plan import ClassReason, Forecast, Plan
from scheduler.decision.snapshot import ClassKey
from scheduler.service import metrics
from store.jobs import canonical
from store.leases import ClassAnswer
from store.live_rows import Answer
from store.plans import ForecastMade
from store.scheduling import Loaded

SUSPENDED_DATA = canonical({"tenant_suspended": True})
MADE_MAXIMUM = 100_000  # forecasts remembered until their jobs start; the oldest are forgotten first


def answers(plan: Plan, loaded: Loaded, forecasts: Mapping[ClassKey, Forecast]) -> list[ClassAnswer]:
    """Return the answers that differ from what the rows of their classes say."""
    disclosure = Disclosure(loaded.snapshot)
    found = [_answer(item, loaded, forecasts, disclosure) for item in plan.reasons]
    found += [
        ClassAnswer(class_id, ReasonCode.HELD.value, SUSPENDED_DATA, Unblock.PERSON_RELEASES.value, None, None) for class_id in loaded.held
    ]
    return [answer for answer in found if loaded.answers.get(answer.class_id) != told(answer)]


def _answer(item: ClassReason, loaded: Loaded, forecasts: Mapping[ClassKey, Forecast], disclosure: Disclosure) -> ClassAnswer:
    forecast = forecasts.get(item.class_key, Forecast())
    data = canonical(dict(disclosure.of(item.reason, item.class_key.tenant).data))
    reason = (item.reason.code.value, data, item.reason.unblocks_when.value)
    return ClassAnswer(loaded.class_ids[item.class_key], *reason, forecast.start_ms, forecast.not_before_ms)


def told(answer: ClassAnswer) -> Answer:
    """Return an answer as the index keeps it."""
    return (
        answer.reason_code,
        answer.reason_data,
        answer.reason_unblocks_when,
        answer.forecast_start_ms,
        answer.not_before_ms,
    )


def count_queue(plan: Plan, loaded: Loaded) -> None:
    """Set the gauge of waiting jobs by reason."""
    counts: dict[str, int] = {}
    sizes = {job_class.key: len(job_class.jobs) for job_class in loaded.snapshot.classes}
    for item in plan.reasons:
        counts[item.reason.code.value] = counts.get(item.reason.code.value, 0) + sizes[item.class_key]
    metrics.QUEUED.clear()
    for code, count in counts.items():
        metrics.QUEUED.labels(code).set(count)


@dataclass
class Promises:
    """The newest forecast that the first job of each class was given."""

    _made: dict[str, tuple[int, int]] = field(default_factory=dict)  # job -> (made at, forecast start)

    def note(self, given: Iterable[ClassAnswer], loaded: Loaded, now_ms: int) -> None:
        """Remember the forecasts among these answers."""
        starts = {answer.class_id: answer.forecast_start_ms for answer in given if answer.forecast_start_ms is not None}
        if not starts:
            return
        for job_class in loaded.snapshot.classes:
            start_ms = starts.get(loaded.class_ids[job_class.key])
            if start_ms is not None and job_class.jobs:
                self._made[job_class.jobs[0].job] = (now_ms, start_ms)
        while len(self._made) > MADE_MAXIMUM:
            del self._made[next(iter(self._made))]

    def kept(self, started: Mapping[str, int], now_ms: int) -> list[ForecastMade]:
        """Return what came of the forecasts of jobs that have just started: job -> attempt."""
        found = []
        for job, attempt in started.items():
            made = self._made.pop(job, None)
            if made is not None:
                metrics.FORECAST_ERROR_SECONDS.observe((now_ms - made[1]) / 1_000)
                found.append(ForecastMade(job, attempt, made[0], made[1], now_ms))
        return found

    def forget(self) -> None:
        """Drop everything: this process leads no more."""
        self._made.clear()
