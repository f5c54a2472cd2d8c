"""The application: routes, problems, limits and metrics around one store.

`create_app` is the only way to make one; there is no global state. What handlers share hangs on `app.state`: store, settings,
authenticator, catalogs, the shared watch, uploads, streams, measures. The composition root serves it; tests call it directly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from api import openapi, problems, upkeep
from api.archives import Uploads
from api.auth import Authenticator
from api.catalog import Catalogs
from api.changes import Changes
from api.edge import Edge, Measures
from api.routes import agents, archives, cohorts, estimates, fleet, health, jobs, people, policy, quotas, streams, tenants, usage, windows
from api.routing import Route
from api.settings import ApiSettings
from api.streams import OpenStreams
from store.engine import Store

# In order of use: a request is matched against one after the other.
ROUTERS = (
    jobs.router,
    agents.router,
    streams.router,
    archives.router,
    people.router,
    tenants.router,
    fleet.router,
    quotas.router,
    cohorts.router,
    windows.router,
    policy.router,
    estimates.router,
    usage.router,
    health.router,
)


def create_app(store: Store, settings: ApiSettings) -> FastAPI:
    """Return the application over an open, migrated store. The caller closes the store."""
    app = FastAPI(
        title="Terrace",
        version=settings.service_version,
        description="Share a fleet of GPU nodes among many businesses.",
        docs_url=None,  # the pages would load their scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,  # a redirect would be built from a header that the client sent
        generate_unique_id_function=openapi.operation_id,
        lifespan=_lifespan,
    )
    measures = Measures()
    app.state.store = store
    app.state.settings = settings
    app.state.authenticator = Authenticator(store, settings)
    app.state.catalogs = Catalogs(store, settings)
    app.state.changes = Changes(store)
    app.state.uploads = Uploads(settings)
    app.state.streams = OpenStreams(settings)
    app.state.estimates_rate = estimates.RateLimit(settings.estimates_per_minute)
    app.state.estimates_at_once = asyncio.Semaphore(settings.estimates_at_once)
    app.state.measures = measures
    app.state.is_stopping = False  # set by whoever serves the application when it is told to stop
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    openapi.install(app, [route for router in ROUTERS for route in router.routes if isinstance(route, Route)])
    app.add_middleware(Edge, measures=measures, body_bytes_maximum=settings.body_bytes_maximum)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(upkeep.run(app.state.store, app.state.uploads, app.state.settings.retention))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await app.state.changes.close()
        app.state.uploads.close()
