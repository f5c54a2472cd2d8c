"""One node with the real agent, the real sandbox and the real service over a real database; only Ray is plain (tests/sandbox/plain_ray.py).

The agent speaks to the application through a `Wire` that a test cuts. The scheduler takes a step whenever a test looks for something. Real
processes run, so tests wait for what they want to see, with a deadline.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import Connection, select

from agents.daemon import Agent
from agents.device_selection import DeviceSettings
from agents.devices import DeviceSet
from agents.sandbox.spec import SandboxEvent, SandboxSettings
from agents.sandbox.supervise import Sandbox
from agents.settings import AgentSettings
from agents.simulated import SimulatedDeviceSet
from agents.surroundings import ProcessTree
from store.logs import ReadLog
from store.tables import Observation
from tests.agents.obstacles import Wire
from tests.sandbox import plain_environment
from tests.support.api import Api, Caller

T = TypeVar("T")

NODE = "node-1"
SECONDS_MAXIMUM = 40
LOOK_EVERY_SECONDS = 0.03
ENDED = {"succeeded", "failed", "cancelled"}


@dataclasses.dataclass(frozen=True)
class Observed:
    """Every observation that the service took: its kind, lease and data, in order."""

    def fetch(self, connection: Connection, /) -> list[tuple[str, str | None, dict[str, Any]]]:
        """Return them."""
        table = Observation.__table__  # type: ignore[attr-defined]
        rows = connection.execute(select(table.c.kind, table.c.lease_id, table.c.data).order_by(table.c.id))
        return [(kind, lease, json.loads(data)) for kind, lease, data in rows]


class Looks:
    """Counts how often the agent looks at its leases."""

    def __init__(self) -> None:
        self.count = 0

    def tree(self, settings: SandboxSettings) -> ProcessTree:
        """Return a process tree whose every poll is counted."""
        looks = self

        class Counted(Sandbox):
            def poll(self) -> list[SandboxEvent]:
                looks.count += 1
                return super().poll()

        return Counted(settings)


class World:
    """The node and the service. Make one with `opened`."""

    def __init__(self, api: Api, member: Caller, settings: AgentSettings) -> None:
        self.api, self.member, self.settings = api, member, settings
        self.wire = Wire(httpx.ASGITransport(api.app))
        self.devices: DeviceSet = SimulatedDeviceSet(NODE)
        self.make_tree: Callable[[], ProcessTree] = lambda: Sandbox(self.settings.sandbox)

    @classmethod
    @asynccontextmanager
    async def opened(cls, api: Api, state_dir: Path, runtime_path: Path) -> AsyncIterator[World]:
        """Make a tenant with a member, a node with a key, and settings that wait for nothing."""
        await api.tenant(gpus=8)
        member = await api.user()
        await api.operator.create("/v1/nodes", {"name": NODE})
        token = (await api.operator.create("/v1/keys", {"node": NODE}))["secret"]
        settings = AgentSettings(
            api_url="http://service.test",
            token=token,
            state_dir=state_dir,
            job_python=plain_environment.PYTHON,
            runtime_path=runtime_path,
            devices=DeviceSettings(node_name=NODE, is_simulation_forced=True),
            metrics_port=None,
            heartbeat_ms=100,
            long_poll_seconds=1.0,
            backoff_minimum_ms=10,
            backoff_maximum_ms=50,
            watch_ms=20,
            sample_ms=50,
            prove_every_ms=20,
            spool_retry_ms=20,
            stop_seconds_maximum=15.0,
        )
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        yield cls(api, member, settings)

    def agent(self, **changes: Any) -> Agent:
        """Return one boot of the agent, with other settings if they are named."""
        self.settings = dataclasses.replace(self.settings, **changes)
        return Agent(self.settings, self.devices, make_tree=lambda: self.make_tree(), isolation="namespaces", transport=self.wire)

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[Agent]:
        """Run one boot of the agent; stop it afterwards as its supervisor does."""
        agent, stop = self.agent(**changes), asyncio.Event()
        task = asyncio.create_task(agent.run(stop))
        try:
            await self.until(self.node_is("ready"), alive=task)
            yield agent
        finally:
            stop.set()
            await task

    def count_looks(self) -> Looks:
        """Count from now on how often the agent looks at its leases."""
        looks = Looks()
        self.make_tree = lambda: looks.tree(self.settings.sandbox)
        return looks

    async def until(
        self, condition: Callable[[], Awaitable[T | None]], *, seconds: float = SECONDS_MAXIMUM, alive: asyncio.Task[None] | None = None
    ) -> T:
        """Let the scheduler take steps until `condition` is true; return its answer."""
        deadline = time.monotonic() + seconds
        while True:
            await self.api.schedule()
            answer = await condition()
            if answer:
                return answer
            if alive is not None and alive.done():
                alive.result()
            assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def submit(self, program: str, *, archive: bytes | None = None, **fields: Any) -> str:
        """Submit a job that runs a Python program; return its identifier."""
        if archive is not None:
            fields["archive_sha256"] = sha256(archive).hexdigest()
            answer = await self.member.send("PUT", f"/v1/archives/{fields['archive_sha256']}", content=archive)
            assert answer.is_success, answer.text
        body = {"entrypoint": ["python", "-c", program], "gpus": 1, "flavors": ["h200"], "limit_seconds": 60, **fields}
        return str((await self.member.create("/v1/jobs", body))["id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        """Return the job as its owner sees it."""
        found: dict[str, Any] = await self.member.fetch(f"/v1/jobs/{job_id}")
        return found

    async def log(self, job_id: str, *, attempt: int | None = None) -> str:
        """Return the output of an attempt, the newest unless it is named."""
        data, offset = b"", 0
        while True:
            part = await self.api.store.read(ReadLog(job_id, None, attempt, offset))
            data += part.data
            if part.next_offset == offset:
                return data.decode()
            offset = part.next_offset

    def state_is(self, job_id: str, *states: str) -> Callable[[], Awaitable[dict[str, Any] | None]]:
        """Return a question whether the job is in one of these states."""

        async def ask() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return job if job["state"] in states else None

        return ask

    def has_ended(self, job_id: str) -> Callable[[], Awaitable[dict[str, Any] | None]]:
        """Return a question whether the job has ended."""
        return self.state_is(job_id, *ENDED)

    def has_said(self, job_id: str, text: str) -> Callable[[], Awaitable[bool]]:
        """Return a question whether the service has this text of the job's output."""

        async def ask() -> bool:
            return text in await self.log(job_id)

        return ask

    def spool_holds(self, agent: Agent, kind: str) -> Callable[[], Awaitable[bool]]:
        """Return a question whether such a report waits in the agent's spool."""

        async def ask() -> bool:
            reports = agent.spool.oldest(reports_maximum=1_000, bytes_maximum=1 << 24)
            return any(report.kind == kind for report in reports)

        return ask

    def has_written_more(self, job_id: str, *, than_bytes: int = 200_000) -> Callable[[], Awaitable[bool]]:
        """Return a question whether the running job's output file has grown by so much since."""
        sizes: list[int] = []

        async def ask() -> bool:
            sizes.append((self.settings.state_dir / "leases" / await self.lease_of(job_id) / "logs/output.log").stat().st_size)
            return sizes[-1] - sizes[0] > than_bytes

        return ask

    def has_no_directory(self, job_id: str) -> Callable[[], Awaitable[bool]]:
        """Return a question whether the directory of the job's lease is deleted."""

        async def ask() -> bool:
            return not (self.settings.state_dir / "leases" / await self.lease_of(job_id)).exists()

        return ask

    def has_been_asked(self, times: int) -> Callable[[], Awaitable[bool]]:
        """Return a question whether the agent has asked for its assignments so often since."""
        before = self.wire.assignments_asked

        async def ask() -> bool:
            return self.wire.assignments_asked - before >= times

        return ask

    def device_is(self, health: str, index: int = 0) -> Callable[[], Awaitable[bool]]:
        """Return a question about a device's health as the service knows it."""

        async def ask() -> bool:
            return bool((await self.node())["devices"][index]["health"] == health)

        return ask

    def node_is(self, state: str) -> Callable[[], Awaitable[bool]]:
        """Return a question about the node."""

        async def ask() -> bool:
            return bool((await self.node())["state"] == state)

        return ask

    async def node(self) -> dict[str, Any]:
        """Return the node as an operator sees it."""
        nodes = await self.api.operator.fetch("/v1/nodes")
        found: dict[str, Any] = next(node for node in nodes["items"] if node["name"] == NODE)
        return found

    async def is_free(self) -> bool:
        """True when nothing of the node is leased."""
        return bool((await self.node())["milli_gpu_leased"] == 0)

    async def observed(self, lease_id: str | None = None) -> list[str]:
        """Return the kinds of what the service took of a lease (of devices, when none is named), in order, progress aside."""
        return [kind for kind, lease, _ in await self.api.store.read(Observed()) if lease == lease_id and kind != "progress"]

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """Return what came with every observation of a kind, in order."""
        return [data for found, _, data in await self.api.store.read(Observed()) if found == kind]

    async def lease_of(self, job_id: str) -> str:
        """Return the job's newest lease."""
        return str((await self.job(job_id))["attempts"][-1]["lease_id"])


def packed(files: dict[str, str]) -> bytes:
    """Return a tar.gz of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()
