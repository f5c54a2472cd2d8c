"""The forecast's own pace: often enough to be current, and never so often that decisions wait for it."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.decision.plan import Forecast
from scheduler.decision.snapshot import ClassKey
from scheduler.service.forecasts import REST_PER_WALK, Forecaster
from scheduler.service.settings import SchedulerSettings
from tests.decision.world import HOUR_MS, World


class Asked:
    """A forecaster over a world in which one tenant is at quota. Its stopwatch moves by `tick` with every look at it."""

    def __init__(self, *, tick: float) -> None:
        self.seconds, self.tick = 0.0, tick
        self.forecaster = Forecaster(SchedulerSettings(), self.stopwatch)
        self.world = World()
        self.world.node("a", gpus=8)
        self.world.tenant("x", 1)
        self.world.runs({"a": [0]}, tenant="x")
        self.world.job(tenant="x")

    def stopwatch(self) -> float:
        """Return the time after this look."""
        self.seconds += self.tick
        return self.seconds

    async def ask(self) -> Mapping[ClassKey, Forecast]:
        """Ask as a cycle does."""
        plan = self.world.check()
        if self.forecaster.is_due(plan):
            self.forecaster.begin(self.world.snapshot(), plan)
        await self.forecaster.settle()
        return self.forecaster.newest


def walks(answers: list[Mapping[ClassKey, Forecast]]) -> int:
    """Return how many walks gave these answers."""
    return len({id(answer) for answer in answers})


async def test_cycles_in_quick_succession_share_one_walk() -> None:
    asked = Asked(tick=0.0)

    answers = [await asked.ask() for _ in range(20)]

    assert (walks(answers), [forecast.start_ms for forecast in answers[0].values()]) == (1, [HOUR_MS])


async def test_forecast_is_made_anew_when_it_is_old() -> None:
    asked = Asked(tick=0.0)
    first = await asked.ask()

    asked.seconds += SchedulerSettings().forecast_every_ms / 1_000

    assert await asked.ask() is not first


async def test_class_that_has_no_forecast_gets_one_at_once() -> None:
    asked = Asked(tick=0.0)
    await asked.ask()
    asked.world.job(tenant="x", gpus=1, limit_ms=1_000)

    answer = await asked.ask()

    assert len(answer) == 2


async def test_class_that_can_never_start_does_not_make_every_cycle_walk() -> None:
    asked = Asked(tick=0.0)
    asked.world.job(tenant="x", gpus=16)

    answers = [await asked.ask() for _ in range(20)]

    assert (walks(answers), len(answers[0])) == (1, 1)


async def test_walks_that_take_long_take_a_tenth_of_the_time() -> None:
    asked = Asked(tick=1.0)  # every walk lasts a second, and so does every cycle between
    answers = []

    for number in range(60):
        asked.world.job(tenant="x", limit_ms=1_000 + number)  # a new class each time, so a walk is always wished for
        answers.append(await asked.ask())

    assert walks(answers) == -(-asked.seconds // (REST_PER_WALK + 2))  # a look, a walk and its rest
