"""The API as its callers see it: the real application over a real store, with people and nodes made through its own routes.

Every answer is held against what the API promises of all answers (tests/support/api_document.py). Rows are counted through `Api.rows`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import Connection, func, select
from sqlmodel import SQLModel

from api import bootstrap, clock
from api.app import create_app
from api.settings import ApiSettings
from billing.service import BillingSettings
from billing.service.loop import rate_once
from executors.nodes import NodesExecutor
from scheduler.service import Loop
from store.engine import Store
from store.seed import Seed
from terrace.models.common import Problem
from tests.support.api_document import check_promises

BASE_URL = "http://terrace.test"
BOOT = "boot-of-the-tests"
GIB = 1 << 30


@dataclass(frozen=True)
class RowCounts:
    """How many rows each table holds."""

    def fetch(self, connection: Connection, /) -> dict[str, int]:
        """Count them."""
        tables = SQLModel.metadata.sorted_tables
        return {table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}


@dataclass(frozen=True)
class EveryText:
    """All text that any table holds."""

    def fetch(self, connection: Connection, /) -> list[str]:
        """Return it."""
        rows = (row for table in SQLModel.metadata.sorted_tables for row in connection.execute(select(table)))
        return [value for row in rows for value in row if isinstance(value, str)]


@dataclass
class Caller:
    """Somebody with a key, or with none."""

    api: Api
    bearer: str | None = None

    async def send(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Send a request, with an Idempotency-Key if one is given; AssertionError when the answer breaks a promise."""
        headers = httpx.Headers(options.pop("headers", None))
        if self.bearer is not None:
            headers["Authorization"] = f"Bearer {self.bearer}"
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = await self.api.http.request(method, path, headers=headers, **options)
        check_promises(answer)
        return answer

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Read."""
        return await self.send("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Create or act."""
        return await self.send("POST", path, json=body, **options)

    async def fetch(self, path: str, **options: Any) -> Any:
        """Return the body of a read that must succeed."""
        return _done(await self.get(path, **options), 200)

    async def create(self, path: str, body: Any, **options: Any) -> Any:
        """Return the body of a post that must create something."""
        return _done(await self.post(path, body, **options), 201)

    async def change(self, method: str, path: str, body: Any = None) -> Any:
        """Return the body of a change that must succeed."""
        return _done(await self.send(method, path, json=body), 200)

    async def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a job of one GPU, changed by `fields`, and return it."""
        job: dict[str, Any] = await self.create("/v1/jobs", spec(**fields))
        return job


@dataclass
class Agent(Caller):
    """A node's agent, reporting as a real one does."""

    name: str = ""
    sent: int = 0

    async def report_inventory(self, *, gpus: int = 8, boot_id: str = BOOT, **other: Any) -> dict[str, Any]:
        """Say what the node has."""
        body = inventory(self.name, gpus=gpus) | {"boot_id": boot_id} | other
        found: dict[str, Any] = await self.change("POST", f"/v1/nodes/{self.name}/inventory", body)
        return found

    async def leases(self) -> list[dict[str, Any]]:
        """Return the node's assignments now."""
        found: list[dict[str, Any]] = (await self.fetch(f"/v1/nodes/{self.name}/assignments"))["items"]
        return found

    async def see(self, *kinds: str, lease: str, data: Mapping[str, Any] | None = None) -> None:
        """Report observations of a lease, each with `data`."""
        await self.report([self.observation(kind, lease=lease, **(data or {})) for kind in kinds])

    async def write(self, lease: str, offset: int, text: str) -> None:
        """Report a piece of output."""
        await self.report([self.observation("log", lease=lease, offset=offset, text=text)])

    async def report(self, observations: list[dict[str, Any]]) -> Any:
        """Send a batch."""
        return await self.change("POST", f"/v1/nodes/{self.name}/observations", {"boot_id": BOOT, "observations": observations})

    def observation(self, kind: str, *, lease: str | None, **data: Any) -> dict[str, Any]:
        """Return the next observation."""
        self.sent += 1
        moment = clock.rfc3339(clock.now_ms())
        return {"agent_seq": self.sent, "kind": kind, "lease_id": lease, "observed_at": moment, "data": data}


@dataclass
class Api:
    """The application, its store and its first operator."""

    store: Store
    app: FastAPI
    http: httpx.AsyncClient
    state_dir: Path
    operator: Caller = field(init=False)

    @classmethod
    @asynccontextmanager
    async def opened(cls, store: Store, state_dir: Path, *, has_operator: bool = True, **settings: Any) -> AsyncIterator[Api]:
        """Serve `store` with these settings to callers in this process."""
        app = create_app(store, ApiSettings(state_dir, **settings))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=BASE_URL) as http:
            api = cls(store, app, http, state_dir)
            await store.run(Seed(clock.now_ms()))
            key_path = state_dir / "operator.key"
            if has_operator:
                bootstrap.first_operator(store, key_path)
            api.operator = api.caller(key_path.read_text().strip() if has_operator else None)
            yield api
            await app.state.changes.close()
            app.state.uploads.close()

    def caller(self, bearer: str | None = None) -> Caller:
        """Return somebody who presents this key."""
        return Caller(self, bearer)

    async def tenant(self, name: str = "acme", *, gpus: int | None = 8, parent: str | None = None) -> str:
        """Make a tenant with a quota of h200 devices."""
        await self.operator.create("/v1/tenants", {"name": name, "parent": parent})
        if gpus is not None:
            await self.operator.change("PUT", f"/v1/quotas/{name}", {"resource": "h200", "nominal": gpus * 1_000})
        return name

    async def user(self, role: str = "member", *, tenant: str | None = "acme", name: str | None = None, **key: Any) -> Caller:
        """Make a user with a key."""
        body = {"name": name or role, "role": role, "tenant": tenant}
        user = await self.operator.create("/v1/users", body)
        return self.caller((await self.operator.create("/v1/keys", {"user_id": user["id"], **key}))["secret"])

    async def node(self, name: str = "node-1", *, gpus: int = 8) -> Agent:
        """Register a node and let its agent report what it has."""
        await self.operator.create("/v1/nodes", {"name": name})
        agent = Agent(self, (await self.operator.create("/v1/keys", {"node": name}))["secret"], name)
        await agent.report_inventory(gpus=gpus)
        return agent

    async def schedule(self) -> None:
        """Let the real scheduler do one cycle."""
        loop = Loop(self.store, NodesExecutor(self.store), holder="tests")
        assert await loop.step()

    async def rate(self) -> int:
        """Let billing rate what has ended."""
        return await rate_once(self.store, BillingSettings(), now_ms=clock.now_ms())

    async def rows(self) -> dict[str, int]:
        """Return how many rows each table holds."""
        return await self.store.read(RowCounts())


def spec(**fields: Any) -> dict[str, Any]:
    """Return a job of one GPU, changed by `fields`."""
    return {"entrypoint": ["python", "train.py"], "gpus": 1, "flavors": ["h200"], **fields}


def inventory(node: str, *, gpus: int) -> dict[str, Any]:
    """Return the inventory of a simulated node."""
    devices = [
        {
            "uuid": f"GPU-{node}-{index}",
            "device_index": index,
            "gpu_model": "h200",
            "memory_bytes": 141 * GIB,
            "cells": 8,
            "is_simulated": True,
        }
        for index in range(gpus)
    ]
    machine = {"agent_version": "0.1.0", "cpu_milli": 64_000, "memory_bytes": 512 * GIB, "isolation": "none"}
    return {"boot_id": BOOT, **machine, "devices": devices}


def problem_of(answer: httpx.Response) -> tuple[int, str, str | None, Any]:
    """Return what a refusal says in brief: status, code, the first field and its limit."""
    problem = Problem.model_validate_json(answer.content)
    first = problem.errors[0] if problem.errors else None
    return answer.status_code, problem.code, first.field if first else None, first.limit if first else None


def _done(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    return answer.json()
