"""A PostgreSQL server that goes away and comes back: refusals that can be repeated, nothing lost, nothing done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from store import migrate
from store.engine import Store
from tests.support.api import Api, problem_of, spec
from tests.support.databases import PostgresServer

pytestmark = pytest.mark.postgres

AWAY = (503, "database_unavailable", None, None)


@asynccontextmanager
async def api_over(server: PostgresServer, state_dir: Path) -> AsyncIterator[Api]:
    """Open the application over a server that the test may kill."""
    url = server.create_database("terrace")
    migrate.upgrade(url)
    store = Store.open(url)
    try:
        async with Api.opened(store, state_dir) as api:
            yield api
    finally:
        store.close()


async def test_requests_are_refused_while_the_database_is_away_and_work_again_after(own_postgres: PostgresServer, tmp_path: Path) -> None:
    async with api_over(own_postgres, tmp_path) as api:
        await api.tenant()
        ada = await api.user("member")
        kept = await ada.submit()

        own_postgres.crash()
        read, written, ready = await ada.get("/v1/jobs"), await ada.post("/v1/jobs", spec(), key="once"), await ada.get("/readyz")
        stranger = await api.caller("key_00000000000000000000.x").get("/v1/me")
        own_postgres.start()
        again = await ada.create("/v1/jobs", spec(), key="once")

        assert [problem_of(answer) for answer in (read, written, stranger)] == [AWAY] * 3
        assert {answer.headers["retry-after"] for answer in (read, written)} == {"1"}
        assert problem_of(ready)[:2] == (503, "not_ready")
        assert [job["id"] for job in (await ada.fetch("/v1/jobs"))["items"]] == [again["id"], kept["id"]]
