"""The API for every test of this folder: `api` on both databases, `open_api` with settings of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from store.engine import Store
from tests.support.api import Api

OpenApi = Callable[..., Awaitable[Api]]


@pytest.fixture
async def open_api(store: Store, tmp_path: Path) -> AsyncIterator[OpenApi]:
    """Open the application with settings: `await open_api(key_cache_seconds=0)`. A second one is a replica over the same store."""
    async with AsyncExitStack() as stack:

        async def opened(**settings: Any) -> Api:
            return await stack.enter_async_context(Api.opened(store, tmp_path, **settings))

        yield opened


@pytest.fixture
async def api_on_sqlite(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The application on SQLite, for what does not concern rows."""
    store = Store.open(sqlite_url)
    try:
        async with Api.opened(store, tmp_path) as opened:
            yield opened
    finally:
        store.close()


@pytest.fixture
async def api(open_api: OpenApi) -> Api:
    """The application with default settings."""
    return await open_api()
