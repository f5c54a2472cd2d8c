"""Settings of the service's processes, read from the environment (prefix `TERRACED_`) and from command options.

Each field says its unit and who should change it. The parts below (api, scheduler, agents, billing) take plain dataclasses of
their own; `terraced/serving.py` fills those from here, so that no part reads the environment by itself.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_PORT = 8470
DEFAULT_METRICS_PORT = 8471
DEFAULT_SCHEDULER_METRICS_PORT = 8472


class Settings(BaseSettings):
    """Everything that a process of the service needs to know before it starts."""

    model_config = SettingsConfigDict(env_prefix="TERRACED_", extra="ignore")

    state_dir: Path = Field(default=Path(".state"), description="Directory of the database, keys, archives and leases; operators.")
    database_url: str | None = Field(
        default=None, description="sqlite:////path or postgresql://…; default: SQLite in state_dir; operators."
    )
    host: str = Field(default="127.0.0.1", description="Address on which the API listens; operators.")
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65_535, description="Port of the API; operators.")
    agent_metrics_port: int = Field(
        default=DEFAULT_METRICS_PORT, ge=0, le=65_535, description="Port of the agent's /metrics on loopback; 0 = any; operators."
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address on which the scheduler's /metrics listens; operators, in a pod of its own."
    )
    scheduler_metrics_port: int = Field(
        default=DEFAULT_SCHEDULER_METRICS_PORT,
        ge=0,
        le=65_535,
        description="Port of the scheduler's /metrics on metrics_host; 0 = any; operators.",
    )
    job_python: Path = Field(
        default=Path(".venv-job/bin/python"),
        description="Interpreter of the job environment, with Ray; never the service's own; operators.",
    )
    node_name: str = Field(default="local", description="Name under which this machine's agent registers; operators.")
    site: str = Field(default="local", description="Site to which the embedded node belongs; operators.")
    simulated_devices: int = Field(default=8, ge=1, le=64, description="Devices of the simulated set when there is no driver; newcomers.")
    is_simulation_allowed: bool = Field(
        default=True, description="Whether a machine without a driver gets simulated devices; operators say no."
    )
    isolation: str = Field(
        default="auto", pattern="^(auto|namespaces|none)$", description="auto: namespaces where the kernel allows them; operators."
    )
    is_embedded: bool = Field(default=False, description="Told to clients: one machine, one trusted user; `terraced up` sets it.")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="How much the processes say; anyone.")

    @property
    def effective_database_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{(self.state_dir.resolve() / 'terrace.db')}"

    @property
    def api_url(self) -> str:
        """Where this machine's processes reach the API."""
        return f"http://{self.host}:{self.port}"

    @property
    def operator_key_path(self) -> Path:
        """File with the first operator's key, readable by its owner only."""
        return self.state_dir / "operator.key"

    @property
    def node_key_path(self) -> Path:
        """File with the embedded node's token, readable by its owner only."""
        return self.state_dir / "node.key"
