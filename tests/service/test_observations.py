"""What agents say may come twice, late, out of order or badly: it counts once, in its place, and stops nobody.

Leases run on machines here, so nothing happens but what the test says in the agent's place.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from executors.nodes import NodesExecutor
from store import tables
from store.agent_reports import AcceptReports, Seen
from store.engine import Store
from store.errors import NotFoundError
from tests.support.fleet import T0_MS, Fleet


class Agent:
    """Speaks for `node-a` about the one lease of a job."""

    def __init__(self, world: Fleet, lease_id: str) -> None:
        self.world, self.lease_id = world, lease_id
        self._numbers = itertools.count(1)

    async def say(self, *kinds: str, at_ms: int = T0_MS, data: Mapping[str, Any] | None = None, number: int | None = None) -> None:
        """Report things of these kinds in one batch, in this order."""
        seen = [Seen(number or next(self._numbers), kind, self.lease_id, at_ms, data or {}) for kind in kinds]
        await self.world.store.run(AcceptReports("node-a", "boot", seen, [], self.world.now_ms, log_bytes_per_attempt_maximum=0))


async def begin(store: Store, **job: Any) -> tuple[Fleet, str, Agent]:
    """Return a world, its job, which is leased, and the agent that speaks of it."""
    world = await Fleet(store, executor=lambda _: NodesExecutor(store)).begin()
    job_id = await world.submit(**job)
    await world.settle()
    (lease,) = await world.leases(job_id)
    return world, job_id, Agent(world, lease["id"])


async def open_observations(world: Fleet) -> Sequence[int]:
    """Return what is not applied yet."""
    return [row["id"] for row in await world.rows(tables.Observation) if row["applied_at_ms"] is None]


async def test_what_is_said_twice_counts_once(store: Store) -> None:
    world, job, agent = await begin(store)
    for number, kind in (
        (1, "started"),
        (1, "started"),
        (2, "started"),
        (3, "exited"),
        (3, "exited"),
        (4, "exited"),
        (5, "gone"),
        (6, "gone"),
    ):
        await agent.say(kind, data={"exit_code": 0}, number=number)
        await world.step()

    await world.settle()

    expected = ["job_submitted", "job_leased", "job_started", "lease_ended", "job_succeeded", "lease_released"]
    assert (await world.events(job), await open_observations(world)) == (expected, [])


@pytest.mark.parametrize("order", list(itertools.permutations(("started", "exited", "gone"))), ids=" before ".join)
async def test_whatever_the_order_in_which_reports_arrive_the_lease_ends_once_and_its_slices_come_back(
    store: Store, order: list[str]
) -> None:
    world, job, agent = await begin(store, attempts=1)
    await agent.say(*order, data={"exit_code": 0})

    await world.settle()

    exit_came_first = order.index("exited") < order.index("gone")
    assert await world.state(job) == ("succeeded" if exit_came_first else "failed")
    assert (await world.rows(tables.DeviceClaim), await open_observations(world)) == ([], [])


async def test_report_of_an_earlier_attempt_does_not_touch_the_next_one(store: Store) -> None:
    world, job, agent = await begin(store)
    await agent.say("lost")
    await world.settle()

    await agent.say("started", "progress", "exited", data={"exit_code": 0, "step": 1})
    await world.settle()
    await agent.say("gone")
    await world.settle()

    assert (await world.state(job), (await world.job(job)).attempt, (await world.job(job)).progress) == ("starting", 2, None)
    assert await world.outcomes(job) == ["node_lost", None]


async def test_only_the_newest_of_many_progress_reports_matters_and_its_metrics_stand_beside_it(store: Store) -> None:
    world, job, agent = await begin(store)
    await agent.say("started")
    for step in range(1, 200):
        await agent.say("progress", data={"step": step, "total": 200, "metrics": {"loss": 1 / step, "not a number": [1]}})

    await world.settle()

    assert (await world.job(job)).progress == '{"loss":0.005025125628140704,"step":199,"total":200}'
    assert await open_observations(world) == []


async def test_report_about_a_lease_of_another_node_is_dropped(store: Store) -> None:
    world, job, agent = await begin(store)
    await world.add_node("node-b", 1)
    seen = [Seen(1, "exited", agent.lease_id, T0_MS, {"exit_code": 0})]

    await store.run(AcceptReports("node-b", "boot", seen, [], T0_MS, log_bytes_per_attempt_maximum=0))
    await world.settle()

    assert (await world.state(job), await world.rows(tables.Observation)) == ("starting", [])
    with pytest.raises(NotFoundError):
        await store.run(AcceptReports("node-x", "boot", seen, [], T0_MS, log_bytes_per_attempt_maximum=0))


async def test_more_reports_than_one_batch_are_all_applied(store: Store) -> None:
    world, job, agent = await begin(store)
    await agent.say(*["progress"] * 1_500, "started", "exited", "gone", data={"exit_code": 0})

    await world.settle()

    assert (await world.state(job), await open_observations(world)) == ("succeeded", [])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"exit_code": 1, "failure_class": "no such class"}, id="an unknown failure class"),
        pytest.param({"exit_code": 1, "failure_class": ["platform"]}, id="a failure class that is a list"),
        pytest.param({"exit_code": 10**30, "failure_class": "user_code"}, id="an exit code that no column holds"),
        pytest.param({"exit_code": "0"}, id="an exit code that is text"),
        pytest.param({"exit_code": 1, "message": "a\0b\ud800" * 5_000}, id="a message with a NUL, half a character and no end"),
    ],
)
async def test_exit_that_is_told_badly_ends_the_lease_and_stops_nobody(store: Store, data: Mapping[str, Any]) -> None:
    world, job, agent = await begin(store, attempts=1)
    await agent.say("started", "exited", "gone", data=data)
    other = await world.submit()

    await world.settle()

    assert [await world.state(name) for name in (job, other)] == ["failed", "starting"]
    assert await open_observations(world) == []


async def test_exit_that_says_nothing_at_all_is_ours(store: Store) -> None:
    world, job, agent = await begin(store, attempts=1)
    await agent.say("started", "exited", "gone")

    await world.settle()

    assert ((await world.job(job)).failure_class, await world.outcomes(job)) == ("platform", ["evicted"])


@pytest.mark.parametrize("health", ["quarantined", "a word that nobody knows", None, 7])
async def test_health_of_a_device_is_kept_and_a_device_that_is_not_healthy_gets_no_lease(store: Store, health: object) -> None:
    world = await Fleet(store).begin(nodes={"node-a": 1})
    told = {"device_uuid": "GPU-node-a-0", "health": health, "detail": "x" * 1_000}
    seen = [Seen(1, "device_health", None, T0_MS, told), Seen(2, "device_health", None, T0_MS, {"device_uuid": 5})]
    await store.run(AcceptReports("node-a", "boot", seen, [], T0_MS, log_bytes_per_attempt_maximum=0))
    job = await world.submit()

    await world.settle()

    (device,) = await world.rows(tables.Device)
    assert (device["health"], len(device["health_detail"])) == ("quarantined" if health == "quarantined" else "unknown", 200)
    assert (await world.state(job), await open_observations(world)) == ("queued", [])
