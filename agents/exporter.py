"""The HTTP server of /metrics: loopback by default, one registry, closed with its agent.

Owns: the socket and its life. Does not own: what is shown (metrics.py). Called by the agent at start. Prometheus on
another machine reaches it through whatever the operator puts in front; Terrace itself never needs the port.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from agents.metrics import AgentCollector
from agents.telemetry import Snapshot

LOOPBACK = "127.0.0.1"
CLOSE_SECONDS_MAX = 5


class PortUnavailableError(Exception):
    """The metrics port cannot be listened on; the message names the setting, the address and the cause."""


class Exporter:
    """A running /metrics server."""

    def __init__(self, source: Callable[[], Snapshot], *, version: str, port: int, host: str = LOOPBACK) -> None:
        """Listen on `host`:`port` (0 picks a free port) and serve. Raises `PortUnavailableError`."""
        registry = CollectorRegistry()
        registry.register(AgentCollector(source, version=version))
        ProcessCollector(registry=registry)
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise PortUnavailableError(f"metrics_port: cannot listen on {host}:{port}: {error.strerror or error}") from error
        self.host = host
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(CLOSE_SECONDS_MAX)

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
