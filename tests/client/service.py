"""The real API on a loopback port, over a real database, with a real scheduler and machines that are played.

Everything runs on one event loop in a thread of its own, so that a test can block in the command line or the SDK as a person's process
does. Nothing moves by itself unless `machines()` is entered: then the scheduler decides, the fake executor plays leases by script in real
time, and billing rates what ended.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

import terrace
from api import bootstrap
from api.app import create_app
from api.clock import now_ms
from api.settings import ApiSettings
from billing.service import BillingSettings
from billing.service.loop import rate_once
from executors.base import Handle, Order
from executors.fake import FakeExecutor, Script
from scheduler.service import Loop, SchedulerSettings
from store import fleet, seed
from store.agent_reports import AcceptReports, Output, Seen
from store.engine import Store
from tests.support.waiting import wait_until

T = TypeVar("T")

GIB = 1 << 30
NODE = "node-a"
PACE_SECONDS = 0.02
CALL_SECONDS_MAXIMUM = 30
START_SECONDS_MAXIMUM = 20


class Machines(FakeExecutor):
    """Leases by one script for all; each writes `output` and reports `progress` as soon as it was ordered."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, now_ms=now_ms, script=lambda _: self.script)
        self.store = store
        self.script = Script(duration_ms=100)
        self.output = b""
        self.progress: dict[str, Any] = {}
        self._numbers = itertools.count(1)

    async def start(self, order: Order, /) -> Handle:
        """Begin the script and say what it says."""
        handle = await super().start(order)
        if self.output:
            await self.say(order.lease_id, self.output, offset=0)
        if self.progress:
            seen = Seen(next(self._numbers), "progress", order.lease_id, now_ms(), self.progress)
            await self._send([seen], [])
        return handle

    async def say(self, lease_id: str, data: bytes, *, offset: int) -> None:
        """Let a lease write output."""
        await self._send([], [Output(next(self._numbers), lease_id, offset, data)])

    async def _send(self, seen: list[Seen], outputs: list[Output]) -> None:
        await self.store.run(AcceptReports(NODE, "says", seen, outputs, now_ms(), log_bytes_per_attempt_maximum=1 << 20))


class Service:
    """One service of one test. `operator` speaks for it; `member` makes people of tenants."""

    def __init__(self, database_url: str, state_dir: Path) -> None:
        self.store = Store.open(database_url)
        self.store.run_blocking(seed.Seed(now_ms()))
        bootstrap.first_operator(self.store, state_dir / "operator.key")
        self.operator_key = (state_dir / "operator.key").read_text().strip()
        self.executor = Machines(self.store)
        self._app = create_app(self.store, ApiSettings(state_dir=state_dir, service_version="0.0-test"))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self._app, log_level="error", access_log=False, timeout_graceful_shutdown=1))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._serving: Any = None
        self._scheduler: Loop | None = None

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        self._serving = asyncio.run_coroutine_threadsafe(self._server.serve(sockets=[self._socket]), self._loop)
        wait_until(lambda: self._server.started or self._serving.done(), seconds=START_SECONDS_MAXIMUM)
        self.operator = terrace.Client(self.url, self.operator_key)

    def stop(self) -> None:
        """Stop serving and close the database."""
        self.operator.close()
        self._app.state.is_stopping = True
        self._server.should_exit = True
        self._serving.result(CALL_SECONDS_MAXIMUM)
        self.call(_end_the_others())  # a library's watcher among them, which would be destroyed while it waits
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS_MAXIMUM)
        self._loop.close()
        self.store.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the service runs and return its answer."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS_MAXIMUM)

    def add_node(self, *, gpus: int = 8) -> None:
        """Add a node whose agent has reported simulated H200s."""
        devices = [fleet.ReportedDevice(f"GPU-{index}", index, "h200", 141 * GIB, cells=1, is_simulated=True) for index in range(gpus)]
        self.operator.create_node(NODE, site="hanoi")
        self.store.run_blocking(fleet.AcceptInventory(NODE, "boot-of-node-a", "1", 64_000, 512 * GIB, "none", devices, now_ms()))

    def member(self, tenant: str = "acme", *, user: str = "ada", role: str = "member", gpus: int = 4) -> str:
        """Make a tenant with a quota and one user; return the user's key."""
        self.operator.create_tenant(tenant)
        self.operator.set_quota(tenant, "h200", nominal=gpus * 1_000)
        made = self.operator.create_user(user, role=role, tenant=tenant)
        return self.operator.create_key(user_id=made.id).secret

    def step(self) -> None:
        """Let the scheduler do one cycle, what is due happen, and billing rate."""
        self.call(self._step())

    @contextmanager
    def machines(self) -> Iterator[Machines]:
        """Let scheduler, machines and billing work by themselves meanwhile."""
        is_over = asyncio.Event()
        running = asyncio.run_coroutine_threadsafe(self._work(is_over), self._loop)
        try:
            yield self.executor
        finally:
            self._loop.call_soon_threadsafe(is_over.set)
            running.result(CALL_SECONDS_MAXIMUM)

    async def _work(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await self._step()
            mark = self.store.change_mark()
            await self.store.wait_for_change(mark, PACE_SECONDS)

    async def _step(self) -> None:
        if self._scheduler is None:
            self._scheduler = Loop(self.store, self.executor, SchedulerSettings())
        heartbeat = AcceptReports(NODE, "heartbeats", [], [], now_ms(), log_bytes_per_attempt_maximum=0)
        if await self.store.read(fleet.Nodes()):
            await self.store.run(heartbeat)
        await self._scheduler.step()
        await self.executor.advance()
        await rate_once(self.store, BillingSettings(), now_ms=now_ms())


async def _end_the_others() -> None:
    """End every task of the running loop but this one."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
