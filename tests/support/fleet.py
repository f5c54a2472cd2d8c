"""A small fleet over a real database: build nodes and tenants, submit jobs, let time pass, and let a scheduler take its steps.

Time is `now_ms` and moves by `pass_time` only. What agents would do is played by the fake executor, which outlives schedulers as machines
do. After every step the world looks at what must always be true: of the rows (tests/support/invariants.py), and of what runs: one
entrypoint of a job at a time, and nothing at all on slices that are free.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from domain.jobs import Shape
from domain.states import TERMINAL_STATES
from executors.base import Executor, Handle, Order
from executors.fake import FakeExecutor, Script
from scheduler.service import Loop, SchedulerSettings
from store import fleet, identity, jobs, quotas, seed, tables
from store.agent_reports import AcceptReports
from store.commands import Command
from store.engine import Store
from store.job_reads import JobView, JobWithAttempts
from store.leader import TakeLead
from store.observations import SilentNodes
from tests.support import invariants, live_view
from tests.support.hooked import HookedStore

T0_MS = 1_800_000_000_000
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
GIB = 1 << 30
STEPS_MAXIMUM = 30
WAIT_SECONDS_MAXIMUM = 60
WORK_MS = 20_000  # what a job takes when its test says nothing
TERMINAL = {state.value for state in TERMINAL_STATES}


@dataclass(frozen=True)
class Rows:
    """A question that returns all rows of a table, as mappings, in order of its key."""

    table: Any

    def fetch(self, connection: Connection, /) -> list[dict[str, Any]]:
        table = self.table.__table__
        return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()]


@dataclass
class Orders:
    """An executor in front of the fake that counts what it was asked: effects are compared with it."""

    fake: FakeExecutor
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    async def start(self, order: Order, /) -> Handle:
        self.started.append(order.lease_id)
        return await self.fake.start(order)

    async def stop(self, order: Order, /) -> None:
        self.stopped.append(order.lease_id)
        await self.fake.stop(order)

    async def status(self, orders: Sequence[Order], /) -> Any:
        return await self.fake.status(orders)


class Fleet:
    """The world of one test. `await begin()` first; names stand for themselves."""

    def __init__(
        self, store: Store, *, settings: SchedulerSettings | None = None, executor: Callable[[Executor], Executor] = lambda fake: fake
    ) -> None:
        self.store = store
        self.settings = settings or SchedulerSettings()
        self.now_ms = T0_MS
        self.stopwatch_seconds = 0.0
        self.scripts: dict[str, Sequence[Script]] = {}  # of a job's attempts; the last one repeats
        self.fake = FakeExecutor(store, now_ms=lambda: self.now_ms, script=self._script)
        self.orders = Orders(self.fake)
        self._executor = executor(self.orders)
        self.silent: set[str] = set()
        self._numbers = itertools.count(1)
        self._nodes: dict[str, int] = {}
        self._changes = 0  # commands of schedulers, those of the lead aside
        self.loop = self.scheduler()

    def scheduler(self, store: Store | None = None, *, executor: Executor | None = None, holder: str | None = None) -> Loop:
        """Return a scheduler process that has done nothing yet; the first one is `loop`."""
        name = holder or self._new("sch")
        return Loop(
            HookedStore(store or self.store, before=self._note),
            executor or self._executor,
            self.settings,
            holder=name,
            now_ms=lambda: self.now_ms,
            new_id=self._new,
            new_token=lambda: "token",
            stopwatch=lambda: self.stopwatch_seconds,
        )

    async def _note(self, command: Command[Any]) -> None:
        if not isinstance(command, TakeLead | SilentNodes):
            self._changes += 1

    def _new(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers):06}"

    def _script(self, order: Order) -> Script:
        scripts = self.scripts.get(order.job_id, (Script(duration_ms=WORK_MS),))
        return scripts[min(order.attempt, len(scripts)) - 1]

    async def begin(self, *, nodes: dict[str, int] | None = None, quota: int | None = 8, cohort: str | None = None) -> Fleet:
        """Make nodes (name: GPUs), one tenant `acme` with a quota in GPUs, and return the world."""
        await self.store.run(seed.Seed(T0_MS))
        for name, gpus in (nodes or {"node-a": 8}).items():
            await self.add_node(name, gpus)
        await self.add_tenant("acme", quota, cohort=cohort)
        return self

    async def add_node(self, name: str, gpus: int) -> None:
        """Make a node with an agent that has sent its inventory."""
        await self.store.run(fleet.CreateNode(f"node_{name}", name, "hanoi", None, self.now_ms))
        self._nodes[name] = gpus
        await self.inventory(name)

    async def inventory(self, name: str) -> None:
        """Let the node's agent say what it has, as it does at its start."""
        devices = [
            fleet.ReportedDevice(f"GPU-{name}-{index}", index, "h200", 141 * GIB, cells=1, is_simulated=True)
            for index in range(self._nodes[name])
        ]
        await self.store.run(fleet.AcceptInventory(name, f"boot-{name}", "1", 64_000, 512 * GIB, "none", devices, self.now_ms))

    async def add_tenant(self, name: str, quota: int | None, *, cohort: str | None = None) -> None:
        """Make a tenant with one member, and a quota of h200 in GPUs; in a cohort it may borrow and lends."""
        await self.store.run(identity.CreateTenant(f"ten_{name}", f"prj_{name}", name, cohort, 1_000, self.now_ms))
        await self.store.run(identity.CreateUser(f"usr_{name}", "ada", "member", name, self.now_ms))
        if quota is not None:
            await self.set_quota(name, quota, since_ms=self.now_ms - DAY_MS)

    async def set_quota(self, tenant: str, gpus: int, *, since_ms: int | None = None) -> None:
        """Give the tenant a new quota of h200, from now on unless said otherwise."""
        since_ms = self.now_ms if since_ms is None else since_ms
        row = quotas.SetQuota(self._new("quo"), tenant, None, "h200", gpus * 1_000, None, None, since_ms, None, self.now_ms)
        await self.store.run(row)

    async def submit(
        self,
        *,
        tenant: str = "acme",
        gpus: int = 1,
        replicas: int = 1,
        limit_ms: int = 10 * MINUTE_MS,
        attempts: int = 3,
        script: Script | Sequence[Script] | None = None,
        cpu_milli: int = 0,
        priority: int = 0,
        tier: str = "standard",
    ) -> str:
        """Accept a job and return its identifier."""
        job_id = self._new("job")
        shape = Shape(("h200",) if gpus else (), replicas, gpus, 1_000, cpu_milli)
        key = jobs.class_key(
            f"ten_{tenant}", f"prj_{tenant}", shape, limit_ms=limit_ms, priority=priority, tier=tier, user_id=f"usr_{tenant}"
        )
        job = jobs.NewJob(job_id, key, shape, None, "default", tier, ["true"], {}, None, None, attempts)
        submitter = jobs.Submitter(f"ten_{tenant}", tenant, f"usr_{tenant}", "ada")
        await self.store.run(jobs.SubmitJobs(submitter, [job], self.now_ms))
        if script is not None:
            self.scripts[job_id] = (script,) if isinstance(script, Script) else script
        return job_id

    async def cancel(self, job_id: str) -> None:
        """Ask for the end of a job, as its owner does."""
        await self.store.run(jobs.CancelJob(job_id, None, "usr_acme", self.now_ms))

    async def drain(self, node: str, *, is_draining: bool = True) -> None:
        """Switch a node as an operator does."""
        await self.store.run(fleet.SetNode(node, None, is_draining, self.now_ms))

    def silence(self, node: str) -> None:
        """Cut a node off: no heartbeat, no report; its leases go on."""
        self.silent.add(node)
        self.fake.silence(node)

    def reconnect(self, node: str) -> None:
        """Let a node be heard again."""
        self.silent.discard(node)
        self.fake.reconnect(node)

    async def restart(self, node: str) -> None:
        """Bring a node back with a new boot of its agent: its leases are lost."""
        self.silent.discard(node)
        self.fake.restart(node)
        await self.inventory(node)

    async def pass_time(self, ms: int) -> None:
        """Let time pass; agents send heartbeats and report what has happened by then."""
        self.now_ms += ms
        self.stopwatch_seconds += ms / 1_000
        for node in self._nodes:
            if node not in self.silent:
                await self.store.run(AcceptReports(node, "heartbeats", [], [], self.now_ms, log_bytes_per_attempt_maximum=0))
        await self.fake.advance()

    async def step(self, loop: Loop | None = None) -> bool:
        """Let a scheduler do one cycle, then look at what must always be true, and that its view of the world is the world."""
        loop = loop or self.loop
        try:
            return await loop.step()
        finally:
            await self.check()
            await live_view.check(self.store, loop)

    async def settle(self, loop: Loop | None = None) -> None:
        """Let agents report and the scheduler step, without time passing, until a cycle changes nothing."""
        for _ in range(STEPS_MAXIMUM):
            before = self._changes
            reports = await self.fake.advance()
            await self.step(loop)
            if not reports and self._changes == before:
                return
        raise AssertionError(f"still changing after {STEPS_MAXIMUM} steps")

    async def until(self, is_so: Callable[[], Any], *, step_ms: int = 1_000, steps: int = 2_000) -> None:
        """Let time pass and the scheduler step until `await is_so()`."""
        for _ in range(steps):
            if await is_so():
                return
            await self.pass_time(step_ms)
            await self.step()
        raise AssertionError(f"not so after {steps} steps")

    async def eventually(self, is_so: Callable[[], Any]) -> None:
        """Wait until `await is_so()`, looking whenever the database changes, while a scheduler runs by itself."""
        mark = -1
        async with asyncio.timeout(WAIT_SECONDS_MAXIMUM):
            while not await is_so():
                mark = await self.store.wait_for_change(mark, 1.0)

    async def check(self) -> None:
        """Assert the invariants of rows and of what runs."""
        await invariants.check(self.store)
        running = [order.job_id for order in self.fake.running]
        assert len(set(running)) == len(running), f"a job runs twice: {sorted(running)}"
        held = {row["id"] for row in await self.rows(tables.Lease) if row["released_at_ms"] is None}
        assert {order.lease_id for order in self.fake.live} <= held, "something runs on slices that are free"

    async def rows(self, table: Any) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        return await self.store.read(Rows(table))

    async def everything(self) -> list[Any]:
        """Return what a scheduler may change, without the marks of time that say nothing new."""
        leader = [row["epoch"] for row in await self.rows(tables.Leader)]
        names = (tables.Job, tables.Lease, tables.Attempt, tables.DeviceClaim, tables.LeaseNode, tables.JobClass, tables.Node, tables.Event)
        open_observations = [row["id"] for row in await self.rows(tables.Observation) if row["applied_at_ms"] is None]
        return [leader, open_observations, *[await self.rows(name) for name in names]]

    async def job(self, job_id: str) -> JobView:
        """Return a job as its owner sees it."""
        return (await self.store.read(JobWithAttempts(job_id)))[0]

    async def state(self, job_id: str) -> str:
        """Return a job's state."""
        return (await self.job(job_id)).state

    async def has_ended(self, *job_ids: str) -> bool:
        """Tell whether the jobs are in terminal states and hold nothing any more."""
        is_released = all(row["released_at_ms"] is not None for row in await self.rows(tables.Lease) if row["job_id"] in job_ids)
        return is_released and all(row["state"] in TERMINAL for row in await self.rows(tables.Job) if row["id"] in job_ids)

    async def until_ended(self, *job_ids: str, step_ms: int = 5_000) -> None:
        """Let time pass until the jobs have ended and hold nothing."""
        await self.until(lambda: self.has_ended(*job_ids), step_ms=step_ms)

    async def outcomes(self, job_id: str) -> list[str | None]:
        """Return how a job's attempts ended, in order."""
        return [attempt.outcome for attempt in (await self.store.read(JobWithAttempts(job_id)))[1]]

    async def events(self, job_id: str) -> list[str]:
        """Return the kinds of a job's events, in order."""
        return [row["kind"] for row in await self.rows(tables.Event) if row["job_id"] == job_id]

    async def leases(self, job_id: str) -> list[dict[str, Any]]:
        """Return the rows of a job's leases, in order of attempt."""
        return sorted((row for row in await self.rows(tables.Lease) if row["job_id"] == job_id), key=lambda row: row["attempt"])
