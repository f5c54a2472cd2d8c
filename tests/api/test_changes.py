from __future__ import annotations

import asyncio

from api import clock
from api.changes import Changes
from store.engine import Store
from store.identity import CreateUser

LONG_SECONDS = 30.0


async def change(store: Store, number: int = 1) -> None:
    """Change something."""
    await store.run(CreateUser(f"usr_{number}", f"user-{number}", "operator", None, clock.now_ms()))


async def test_everybody_who_waits_is_woken_by_one_change(store: Store) -> None:
    changes = Changes(store)
    before = asyncio.all_tasks()
    waits = [asyncio.create_task(changes.wait(changes.mark(), LONG_SECONDS)) for _ in range(100)]
    await asyncio.sleep(0)
    watching = asyncio.all_tasks() - before - set(waits)

    await change(store)

    assert await asyncio.gather(*waits) == [True] * 100
    assert len(watching) == 1
    await changes.close()


async def test_change_between_the_mark_and_the_wait_is_not_missed(store: Store) -> None:
    changes = Changes(store)
    mark = changes.mark()

    await change(store)

    assert await changes.wait(mark, LONG_SECONDS)
    await changes.close()


async def test_every_one_of_many_changes_wakes_who_waits_in_between(store: Store) -> None:
    changes = Changes(store)
    woken = []
    for number in range(10):
        mark = changes.mark()
        wait = asyncio.create_task(changes.wait(mark, LONG_SECONDS))
        await change(store, number)
        woken.append(await wait)

    assert woken == [True] * 10
    await changes.close()


async def test_wait_for_nothing_ends_after_its_time(store: Store) -> None:
    changes = Changes(store)

    assert not await changes.wait(changes.mark(), 0.01)
    await changes.close()
