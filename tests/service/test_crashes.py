"""A scheduler that dies between any two of its commands loses nothing and runs nothing twice.

The story has everything in it: a start, a gang, a cancel, a drain, a failure of ours and one of the job's own, a job at quota. It is told
once without a crash, and then with a scheduler that dies at each of its commands: on SQLite before the command is run (what was done since
the one before is done), on PostgreSQL, at every third, right after it is durable (its answer is lost). The database is opened anew and
another scheduler takes over.
"""

from __future__ import annotations

from collections import Counter

import pytest

from executors.fake import Script
from scheduler.service import Loop
from store import tables
from store.engine import Store
from tests.support.fleet import Fleet
from tests.support.hooked import KilledError, KillPoint

COMMANDS = 38  # of the scheduler in the whole story
NEVER = 1_000_000
LONG = Script(duration_ms=30_000, stop_ms=1_000, idle_ms=500)
ENDS = {
    "gang": "succeeded",
    "cancelled": "cancelled",
    "evicted": "succeeded",
    "failed by us": "succeeded",
    "failed by itself": "failed",
    "short": "succeeded",
    "at quota": "succeeded",
}


class Story:
    """The story, and the scheduler that lives through it: doomed at first, then a successor on the database opened anew."""

    def __init__(self, store: Store, kill_point: KillPoint) -> None:
        self.world = Fleet(store)
        self.loop: Loop = self.world.scheduler(kill_point.store(store))
        self.jobs: dict[str, str] = {}
        self.successor: Store | None = None

    async def settle(self) -> None:
        """Settle; when the scheduler dies on the way, let the term pass and another one take over."""
        try:
            await self.world.settle(self.loop)
        except KilledError:
            self.successor = Store.open(self.world.store.url)
            self.loop = self.world.scheduler(self.successor)
            await self.world.pass_time(self.world.settings.term_ms)
            await self.world.settle(self.loop)

    async def tell(self) -> dict[str, str]:
        """Live through it and return how the jobs ended."""
        world = await self.world.begin(nodes={"node-a": 4, "node-b": 4}, quota=7)
        submit = world.submit
        self.jobs["gang"] = await submit(gpus=2, replicas=2, script=LONG)
        self.jobs["cancelled"] = await submit(script=LONG)
        self.jobs["evicted"] = await submit(script=[LONG, Script(duration_ms=5_000)])
        self.jobs["failed by us"] = await submit(script=[Script(duration_ms=3_000, failure_class="device"), Script(duration_ms=3_000)])
        await self.settle()
        await world.cancel(self.jobs["cancelled"])
        await world.drain("node-a")
        self.jobs["failed by itself"] = await submit(script=Script(duration_ms=2_000, exit_code=1, failure_class="user_code"))
        self.jobs["short"] = await submit(script=Script(duration_ms=100, start_ms=100))
        self.jobs["at quota"] = await submit(gpus=3, script=Script(duration_ms=1_000))
        await self.settle()
        await world.pass_time(2_500)
        await self.settle()
        await world.drain("node-a", is_draining=False)
        while not await world.has_ended(*self.jobs.values()):
            await world.pass_time(20_000)
            await self.settle()
        return {name: await world.state(job) for name, job in self.jobs.items()}

    async def starts(self) -> Counter[tuple[str, str]]:
        """Return how often each attempt of each job was started, as its owner was told."""
        return Counter((row["job_id"], row["data"]) for row in await self.world.rows(tables.Event) if row["kind"] == "job_started")

    async def is_at_rest(self) -> bool:
        """Tell whether nothing is leased, claimed or running any more."""
        leases = [row["released_at_ms"] for row in await self.world.rows(tables.Lease)]
        return None not in leases and not self.world.fake.live and not await self.world.rows(tables.DeviceClaim)

    def close(self) -> None:
        """Close what the successor opened."""
        if self.successor is not None:
            self.successor.close()


async def test_story_ends_well_without_a_crash_and_has_as_many_commands_as_deaths_are_tried(store: Store) -> None:
    kill_point = KillPoint(NEVER, is_after=True)

    assert await Story(store, kill_point).tell() == ENDS

    assert kill_point.count == COMMANDS


@pytest.mark.parametrize("at", range(1, COMMANDS + 1))
async def test_death_of_the_scheduler_before_a_command_loses_nothing_and_runs_nothing_twice(sqlite_url: str, at: int) -> None:
    await live_through(sqlite_url, KillPoint(at, is_after=False))


@pytest.mark.postgres
@pytest.mark.parametrize("at", range(1, COMMANDS + 1, 3))
async def test_death_of_the_scheduler_after_a_command_loses_nothing_and_runs_nothing_twice(postgres_url: str, at: int) -> None:
    await live_through(postgres_url, KillPoint(at, is_after=True))


async def live_through(url: str, kill_point: KillPoint) -> None:
    """Tell the story with this death in it, and look at its end."""
    store = Store.open(url)
    story = Story(store, kill_point)
    try:
        assert await story.tell() == ENDS
        assert kill_point.has_struck
        assert await story.is_at_rest()
        assert set((await story.starts()).values()) == {1}
    finally:
        story.close()
        store.close()
