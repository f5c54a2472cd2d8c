"""Settings of the service's processes, read from the environment (prefix `TERRACED_`) and from command options.

Each field says its unit and who should change it. The parts below (api, scheduler, agents, billing) take plain dataclasses of
their own (`terraced/parts.py`); `terraced/serving.py` fills those from here, so that no part reads the environment by itself. A variable
with our prefix that is no setting is refused: a misspelt limit would otherwise be no limit. docs/settings.md lists all of them.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from terraced import parts, processes

DEFAULT_PORT = 8470
DEFAULT_METRICS_PORT = 8471
DEFAULT_SCHEDULER_METRICS_PORT = 8472


class Settings(BaseSettings):
    """Everything that a process of the service needs to know before it starts."""

    model_config = SettingsConfigDict(env_prefix=parts.PREFIX, env_nested_delimiter=parts.DELIMITER, extra="forbid")

    state_dir: Path = Field(default=Path(".state"), description="Directory of the database, keys, archives and leases; operators.")
    database_url: str | None = Field(
        default=None, description="sqlite:////path or postgresql://…; default: SQLite in state_dir; operators."
    )
    host: str = Field(default="127.0.0.1", description="Address on which the API listens; operators.")
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65_535, description="Port of the API; operators.")
    api_url: str | None = Field(
        default=None,
        description="Where this machine's agent reaches the API, https:// from another machine; default: host and port; operators.",
    )
    is_clear_text_allowed: bool = Field(
        default=False,
        description="Whether the agent may send its key to another machine by http://; operators of a network that encrypts by itself.",
    )
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
    is_simulation_allowed: bool | None = Field(
        default=None,
        description="Whether a machine without a driver gets simulated devices; default: yes under `terraced up`, else no; newcomers.",
    )
    isolation: str = Field(
        default="auto", pattern="^(auto|namespaces|none)$", description="auto: namespaces where the kernel allows them; operators."
    )
    is_embedded: bool = Field(default=False, description="Told to clients: one machine, one trusted user; `terraced up` sets it.")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description="How much the processes say; anyone.")
    api: dict[str, Any] = Field(default_factory=dict, description="Settings of the API.")
    agent: dict[str, Any] = Field(default_factory=dict, description="Settings of the agent.")
    scheduler: dict[str, Any] = Field(default_factory=dict, description="Settings of the scheduler.")
    billing: dict[str, Any] = Field(default_factory=dict, description="Settings of billing.")

    @field_validator("api_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parsed = urlsplit(url)
        if parsed.scheme not in ("http", "https") or not parsed.hostname or parsed.query or parsed.fragment or "@" in parsed.netloc:
            raise ValueError("must be http:// or https:// with a host, and no more than a path")
        return url.rstrip("/")

    @field_validator("api", "agent", "scheduler", "billing")
    @classmethod
    def _check_part(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return parts.check(info.field_name or "", given)

    @property
    def effective_database_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{(self.state_dir.resolve() / 'terrace.db')}"

    @property
    def effective_api_url(self) -> str:
        """Where this machine's processes reach the API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.api_url or f"http://{host}:{self.port}"

    @property
    def sends_keys_in_clear(self) -> bool:
        """Whether a key on its way to the API could be read on a network. The API of `terraced up` is on this machine."""
        parsed = urlsplit(self.effective_api_url)
        is_own = self.is_embedded and self.api_url is None
        return parsed.scheme == "http" and not is_own and not _is_this_machine(parsed.hostname or "")

    @property
    def operator_key_path(self) -> Path:
        """File with the first operator's key, readable by its owner only."""
        return self.state_dir / "operator.key"

    @property
    def node_key_path(self) -> Path:
        """File with the embedded node's token, readable by its owner only."""
        return self.state_dir / "node.key"


def documented() -> Iterator[tuple[str, str, str]]:
    """Yield (variable, default, meaning) of every setting of the service, those of the parts behind the plain ones."""
    for name, field in Settings.model_fields.items():
        if name not in parts.PARTS:
            yield parts.variable(name), "" if field.default is None else str(field.default), field.description or ""
    yield from parts.documented()


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return what carries our prefix and is no setting, each with the setting that it resembles."""
    plain = {parts.variable(name) for name in Settings.model_fields}
    known = plain | {processes.SUPERVISOR_PID_VARIABLE}
    nested = tuple(parts.variable(name) + parts.DELIMITER for name in parts.PARTS)  # those are checked with their part
    unknown = []
    for name in sorted(environment):
        if not name.startswith(parts.PREFIX) or name in known or name.startswith(nested):
            continue
        close = difflib.get_close_matches(name, [item[0] for item in documented()], n=1)
        unknown.append(f"{name}: there is no such setting" + (f"; did you mean {close[0]}?" if close else "; docs/settings.md lists them"))
    return unknown


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified
