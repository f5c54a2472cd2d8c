"""The live view beside what every service test already holds it to (tests/support/live_view.py): what it forgets, and what is frozen."""

from __future__ import annotations

import pytest

from scheduler.service import index
from store.engine import Store
from tests.support import live_view
from tests.support.fleet import Fleet


async def test_view_forgets_classes_of_which_nothing_waits_and_learns_them_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "CLASSES_KEPT_MAXIMUM", 2)
    world = await Fleet(store).begin(quota=1)
    for number in range(6):
        await world.submit(limit_ms=60_000 + number)
        await world.step()
    await world.submit(limit_ms=60_000)

    await world.settle()

    await live_view.check(store, world.loop)


async def test_frozen_snapshot_stays_as_it_is_while_the_view_goes_on(store: Store) -> None:
    world = await Fleet(store).begin(quota=2)
    await world.submit()
    await world.settle()
    assert world.loop.keeper.index is not None
    frozen = world.loop.keeper.index.loaded(world.now_ms, is_frozen=True)
    before = live_view.parts(frozen)

    for _ in range(3):
        await world.submit(gpus=1)
    await world.settle()

    assert live_view.parts(frozen) == before
