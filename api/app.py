"""The application: routes, problems, limits and metrics around one store.

`create_app` is the only way to make one; there is no global state. What handlers share hangs on `app.state`: store, settings,
authenticator, catalogs, measures. The composition root serves it; tests call it directly.
"""

from __future__ import annotations

from fastapi import FastAPI

from api import problems
from api.auth import Authenticator
from api.catalog import Catalogs
from api.edge import Edge, Measures
from api.routes import agents, archives, estimates, fleet, health, jobs, people, quotas, streams, tenants, usage
from api.settings import ApiSettings
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
    )
    measures = Measures()
    app.state.store = store
    app.state.settings = settings
    app.state.authenticator = Authenticator(store, settings)
    app.state.catalogs = Catalogs(store, settings)
    app.state.estimates_rate = estimates.RateLimit(settings.estimates_per_minute)
    app.state.measures = measures
    app.state.is_stopping = False  # set by whoever serves the application when it is told to stop
    app.state.open_streams = 0
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Edge, measures=measures, body_bytes_maximum=settings.body_bytes_maximum)
    return app
