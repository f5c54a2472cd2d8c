"""One function per process of the service: fill its settings, open what it needs, serve until told to stop.

Called by the `terraced api`, `scheduler` and `agent` commands, alone or under `terraced up`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from types import FrameType
from typing import Any

import structlog
import uvicorn
from prometheus_client import start_http_server

from agents import daemon
from agents.device_selection import DeviceSettings
from agents.sandbox.spec import Isolation
from agents.settings import AgentSettings
from api.app import create_app
from api.settings import ApiSettings
from billing import service as billing
from scheduler import service as scheduler
from store import migrate
from store.engine import Store
from terraced.settings import Settings

GRACEFUL_SECONDS = 5
BACKLOG = 2_048


def configure_logging(level: str, process: str) -> None:
    """Write structured lines to standard error, from our code and from libraries."""
    number = getattr(logging, level.upper())
    logging.basicConfig(level=max(number, logging.WARNING), format=f"{process} %(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "process", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    structlog.contextvars.bind_contextvars(process=process)


def serve_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT."""
    configure_logging(settings.log_level, "api")
    migrate.check(settings.effective_database_url)
    store = Store.open(settings.effective_database_url)
    app = create_app(
        store,
        ApiSettings(state_dir=settings.state_dir.resolve(), is_embedded=settings.is_embedded, service_version=service_version()),
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    try:
        _Server(config, app.state).run()
    finally:
        store.close()


class _Server(uvicorn.Server):
    """Tells the application at once when it is told to stop, so that long polls answer instead of being cut off."""

    def __init__(self, config: uvicorn.Config, state: Any) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.is_stopping = True
        super().handle_exit(sig, frame)


def serve_scheduler(settings: Settings) -> None:
    """Run the scheduler and billing side by side until SIGTERM or SIGINT. Either one failing ends both."""
    configure_logging(settings.log_level, "scheduler")
    migrate.check(settings.effective_database_url)
    if settings.scheduler_metrics_port:
        start_http_server(settings.scheduler_metrics_port, addr=settings.metrics_host)

    async def run(stop: asyncio.Event) -> None:
        async with _store(settings) as store, asyncio.TaskGroup() as group:
            group.create_task(scheduler.run(store, scheduler.SchedulerSettings(), stop))
            group.create_task(billing.run(store, billing.BillingSettings(), stop))

    asyncio.run(_until_told(run))


def serve_agent(settings: Settings) -> None:
    """Run the node agent until SIGTERM or SIGINT. Everything that the service keeps beside the agent's own folder is hidden from leases."""
    configure_logging(settings.log_level, "agent")
    state_dir = settings.state_dir.resolve()
    agent = AgentSettings(
        api_url=settings.api_url,
        token=settings.node_key_path.read_text().strip(),
        state_dir=state_dir / "agent",
        job_python=str(settings.job_python.absolute()),
        devices=DeviceSettings(
            node_name=settings.node_name,
            is_simulation_allowed=settings.is_simulation_allowed,
            simulated_device_count=settings.simulated_devices,
        ),
        agent_version=service_version(),
        isolation=None if settings.isolation == "auto" else Isolation(settings.isolation),
        hidden_paths=(state_dir,),
        metrics_port=settings.agent_metrics_port,
    )
    asyncio.run(_until_told(functools.partial(daemon.run, agent)))


@contextlib.asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[Store]:
    store = Store.open(settings.effective_database_url)
    try:
        yield store
    finally:
        store.close()


async def _until_told(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(stop)


def service_version() -> str:
    """Return the version of the installed service."""
    return importlib.metadata.version("terraced")
