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
from agents.devices import NoDriverError
from agents.exporter import PortUnavailableError
from agents.sandbox.spec import Isolation, SandboxError
from agents.settings import AgentSettings
from agents.spool import SpoolError
from api.app import create_app
from api.settings import ApiSettings
from billing import service as billing
from scheduler import service as scheduler
from store.engine import Store
from terraced import bootstrap, parts, preflight
from terraced.settings import Settings

# What keeps a process from starting, each with a message for the person who started it.
START_ERRORS = (preflight.NotReadyError, daemon.AgentError, SandboxError, NoDriverError, PortUnavailableError, SpoolError)
GRACEFUL_SECONDS = 5
BACKLOG = 2_048

log = structlog.get_logger(__name__)


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
    bootstrap.check_schema(settings)
    preflight.check_port("port", settings.host, settings.port)
    filled = ApiSettings(state_dir=settings.state_dir.resolve(), is_embedded=settings.is_embedded, service_version=service_version())
    store = Store.open(settings.effective_database_url)
    app = create_app(store, parts.with_given(filled, settings.api))
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
    bootstrap.check_schema(settings)
    preflight.check_port("scheduler_metrics_port", settings.metrics_host, settings.scheduler_metrics_port)
    server, _ = start_http_server(settings.scheduler_metrics_port, addr=settings.metrics_host)
    log.info("metrics", host=settings.metrics_host, port=server.server_port)
    of_scheduler = parts.with_given(scheduler.SchedulerSettings(), settings.scheduler)
    of_billing = parts.with_given(billing.BillingSettings(), settings.billing)

    async def run(stop: asyncio.Event) -> None:
        async with _store(settings) as store, asyncio.TaskGroup() as group:
            group.create_task(scheduler.run(store, of_scheduler, stop))
            group.create_task(billing.run(store, of_billing, stop))

    asyncio.run(_until_told(run))


def serve_agent(settings: Settings) -> None:
    """Run the node agent until SIGTERM or SIGINT. Everything that the service keeps beside the agent's own folder is hidden from leases."""
    configure_logging(settings.log_level, "agent")
    state_dir = settings.state_dir.resolve()
    if settings.sends_keys_in_clear and not settings.is_clear_text_allowed:
        message = f"{settings.effective_api_url} would carry this node's key over the network in clear; use https://"
        raise preflight.NotReadyError("api_url", f"{message}, or set is_clear_text_allowed where the network itself encrypts")
    agent = AgentSettings(
        api_url=settings.effective_api_url,
        token=preflight.node_key(settings.node_key_path),
        state_dir=state_dir / "agent",
        job_python=str(settings.job_python.absolute()),
        devices=DeviceSettings(
            node_name=settings.node_name,
            is_simulation_allowed=bool(settings.is_simulation_allowed),
            simulated_device_count=settings.simulated_devices,
        ),
        agent_version=service_version(),
        isolation=None if settings.isolation == "auto" else Isolation(settings.isolation),
        is_everybody_trusted=settings.is_embedded,
        hidden_paths=(state_dir,),
        metrics_port=settings.agent_metrics_port,
    )
    asyncio.run(_until_told(functools.partial(daemon.run, parts.with_given(agent, settings.agent))))


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
