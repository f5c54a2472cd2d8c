"""Who leads: one holder at a time, an epoch that only grows, and no write of a leader that was overtaken."""

from __future__ import annotations

from typing import Any

import pytest

from store.errors import StaleError
from store.executions import RecordHandles
from store.leader import Fence, GiveUpLead, MayLead, TakeLead
from store.leases import AnswerClasses, ApplyChanges
from store.observations import SetAside, SilentNodes
from store.plans import ApplyPlan
from tests.store.world import T0_MS, World
from tests.support.statements import rows

TERM_MS = 5_000


def take(world: World, holder: str, *, after_ms: int = 0) -> Any:
    """Return the fence that `holder` gets, None while another one leads."""
    fence: Fence | None = world.run(TakeLead("scheduler", holder, T0_MS + after_ms, TERM_MS))
    may: bool = world.read(MayLead("scheduler", holder, T0_MS + after_ms, TERM_MS))
    assert may == (fence is not None), "asking and taking answer alike"
    return fence


def test_first_one_leads_and_the_others_stand_by(world: World) -> None:
    assert take(world, "a") == Fence("scheduler", 1)
    assert take(world, "b", after_ms=TERM_MS - 1) is None


def test_holder_that_renews_keeps_its_epoch(world: World) -> None:
    assert [take(world, "a", after_ms=at) for at in (0, 4_000, 8_000)] == [Fence("scheduler", 1)] * 3
    assert take(world, "b", after_ms=12_999) is None


def test_silent_holder_is_overtaken_with_the_next_epoch(world: World) -> None:
    take(world, "a")
    assert take(world, "b", after_ms=TERM_MS) == Fence("scheduler", 2)
    assert take(world, "a", after_ms=TERM_MS) is None


def test_holder_whose_clock_was_put_back_does_not_lead_for_ever(world: World) -> None:
    take(world, "a", after_ms=3_600_000)
    assert take(world, "b") == Fence("scheduler", 2)


def test_lead_that_was_given_up_is_free_at_once_and_its_epoch_is_spent(world: World) -> None:
    fence = take(world, "a")
    world.run(GiveUpLead(fence))
    assert take(world, "a") == Fence("scheduler", 2)


def test_giving_up_a_lead_that_was_lost_takes_it_from_nobody(world: World) -> None:
    old = take(world, "a")
    take(world, "b", after_ms=TERM_MS)
    world.run(GiveUpLead(old))
    assert take(world, "c", after_ms=TERM_MS) is None


def test_leads_of_two_names_have_nothing_to_do_with_one_another(world: World) -> None:
    take(world, "a")
    assert world.run(TakeLead("billing", "b", T0_MS, TERM_MS)) == Fence("billing", 1)


OLD = Fence("scheduler", 1)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(ApplyPlan(OLD, T0_MS), id="bind"),
        pytest.param(ApplyChanges(OLD, [], T0_MS), id="apply"),
        pytest.param(AnswerClasses(OLD, [], T0_MS), id="answer"),
        pytest.param(SetAside(OLD, [], T0_MS), id="set aside"),
        pytest.param(SilentNodes(OLD, T0_MS, 1), id="silent nodes"),
        pytest.param(RecordHandles(OLD, {}, T0_MS), id="handles"),
    ],
)
def test_leader_that_was_overtaken_writes_nothing(world: World, command: Any) -> None:
    take(world, "a")
    take(world, "b", after_ms=TERM_MS)
    before = rows(world.store, "SELECT * FROM leader")
    with pytest.raises(StaleError, match="epoch 1 no longer leads"):
        world.run(command)
    assert rows(world.store, "SELECT * FROM leader") == before


def test_stamps_never_go_backwards_over_clock_steps_and_takeovers(world: World) -> None:
    class Stamp:
        def __init__(self, fence: Fence, now_ms: int) -> None:
            self.fence, self.now_ms = fence, now_ms

        def execute(self, connection: Any, /) -> int:
            return self.fence.stamp(connection, self.now_ms)

    first = take(world, "a")
    stamps = [world.run(Stamp(first, T0_MS + at)) for at in (10, 5, 20)]
    second = take(world, "b", after_ms=TERM_MS)
    stamps.append(world.run(Stamp(second, T0_MS + 15)))
    assert [stamp - T0_MS for stamp in stamps] == [10, 10, 20, 20]
