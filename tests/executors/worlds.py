"""The surroundings in which each executor is held to the same promises.

A world commits intents, as the scheduler does before it asks, and lets time pass and whoever plays the machines do their part. `nodes` runs
with stand-in agents that pull their assignments from the rows and act them out with a fake of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from executors.base import Executor, Order, Status
from executors.fake import FakeExecutor, Script
from executors.nodes import NodesExecutor
from scheduler.service import observe
from scheduler.service.executions import order_of
from store import tables
from store.assignments import AssignmentsOfNode
from store.engine import Store
from store.leader import Fence, TakeLead
from store.leases import ApplyChanges, Change, OpenLeases
from tests.support.fleet import Fleet

NODES = {"node-a": 4, "node-b": 4}
SCRIPT = Script(start_ms=1_000, duration_ms=60_000, stop_ms=2_000, idle_ms=500)


class ExecutorWorld(Protocol):
    """What the conformance tests need of the surroundings of an executor."""

    executor: Executor
    started: list[str]  # leases whose run has begun, once for each time that it began

    async def commit(self) -> Order:
        """Commit a lease, as the scheduler does before it asks for the start."""

    async def commit_stop(self, order: Order) -> None:
        """Commit that a lease shall stop, as the scheduler does before it asks for the stop."""

    async def pass_time(self, ms: int) -> None:
        """Let time pass, agents act and what they report be applied."""


@dataclass
class RowsAndFake:
    """A real database with leases bound by a scheduler's commands, and scripts that are acted out."""

    store: Store
    executor: Executor = field(init=False)
    started: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.store)
        self.fake = FakeExecutor(self.store, now_ms=lambda: self.fleet.now_ms, script=self._begin)
        self.executor = self.fake
        self.fence: Fence | None = None

    def _begin(self, order: Order) -> Script:
        self.started.append(order.lease_id)
        return SCRIPT

    async def commit(self) -> Order:
        """Let a scheduler bind a lease of one GPU, and be that scheduler from then on."""
        if self.fence is None:
            await self.fleet.begin(nodes=NODES)
        job = await self.fleet.submit()
        await self.fleet.scheduler(executor=Deaf(), holder="sch_conformance").step()
        self.fence = await self.store.run(TakeLead("scheduler", "sch_conformance", self.fleet.now_ms, 5_000))
        (lease,) = await self.fleet.leases(job)
        return order_of((await self.store.read(OpenLeases([lease["id"]])))[0])

    async def commit_stop(self, order: Order) -> None:
        assert self.fence is not None
        fields = {"target": "stop", "stop_cause": "cancelled", "stop_requested_at_ms": self.fleet.now_ms}
        await self.store.run(ApplyChanges(self.fence, [Change(order.lease_id, lease=fields)], self.fleet.now_ms))

    async def pass_time(self, ms: int) -> None:
        assert self.fence is not None
        await self.act()
        self.fleet.now_ms += ms
        await self.fake.advance()
        await observe.apply_observations(self.store, self.fence, now_ms=self.fleet.now_ms)

    async def act(self) -> None:
        """Let agents do what they were told."""


class Deaf:
    """An executor that is told everything and does nothing: the conformance tests do the asking."""

    async def start(self, order: Order, /) -> dict[str, str]:
        return {}

    async def stop(self, order: Order, /) -> None:
        return

    async def status(self, orders: object, /) -> dict[str, Status]:
        return {}


class Machines(RowsAndFake):
    """The same with agents between: the executor under test is `nodes`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.executor = NodesExecutor(self.store)

    async def act(self) -> None:
        released = {row["id"] for row in await self.fleet.rows(tables.Lease) if row["released_at_ms"] is not None}
        for node in NODES:
            for item in await self.store.read(AssignmentsOfNode(node)):
                nodes = (node,)
                order = Order(item.lease_id, item.tenant_id, item.job_id, item.attempt, nodes, item.limit_ms, item.grace_ms)
                assert item.lease_id not in released
                await (self.fake.stop(order) if item.target == "stop" else self.fake.start(order))
