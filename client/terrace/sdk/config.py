"""Where the service is and which key speaks for the caller.

Each of the two comes from the first of: an argument, the environment (TERRACE_URL, TERRACE_API_KEY), the file that `terrace login` wrote.
The file is readable by its owner only and holds one URL and one key. TERRACE_CONFIG names another file.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from terrace.sdk.errors import ConfigError, NotLoggedInError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
KNOWN_SETTINGS = frozenset({"url", "key"})
DEFAULT_URL = "http://127.0.0.1:8470"


@dataclass(frozen=True, slots=True)
class Config:
    """A resolved address and key."""

    url: str
    key: str = field(repr=False)


def path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the configuration file is."""
    named = environment.get("TERRACE_CONFIG")
    if named:
        return Path(named)
    base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "terrace" / "config.toml"


def resolve(url: str | None = None, key: str | None = None, *, environment: Mapping[str, str] = os.environ) -> Config:
    """Return the address and the key to use; ConfigError when there is no key or a setting is malformed."""
    file = read(path(environment))
    found_url = url or environment.get("TERRACE_URL") or file.get("url") or DEFAULT_URL
    found_key = key or environment.get("TERRACE_API_KEY") or file.get("key")
    if not found_key:
        raise NotLoggedInError("key: there is none; run `terrace login`, or set TERRACE_API_KEY")
    return Config(check_url(found_url), check_key(found_key))


def check_url(url: str) -> str:
    """Return the address without a final slash; ConfigError unless it is an http(s) URL with a host and nothing secret in it."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"url: {url!r} must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        is_plain = False
    if not is_plain or not url.isprintable() or " " in url:
        raise ConfigError(f"url: {url!r} must be a host with an optional port and path, such as http://127.0.0.1:8470")
    return url.rstrip("/")


def check_key(key: str) -> str:
    """Return the key without surrounding space; ConfigError unless it can stand in a header."""
    stripped = key.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ConfigError("key: must be one line of printable ASCII without spaces, as the service printed it")
    return stripped


def read(file: Path) -> dict[str, str]:
    """Return the settings in the file, empty when there is none; ConfigError names what is broken."""
    try:
        settings = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    unknown = sorted(set(settings) - KNOWN_SETTINGS)
    if unknown:
        raise ConfigError(f"{file}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(KNOWN_SETTINGS))}")
    for name, value in settings.items():
        if not isinstance(value, str):
            raise ConfigError(f"{file}: {name}: must be text")
    return settings


def write(config: Config, file: Path) -> None:
    """Replace the file's settings at once, readable by its owner only; ConfigError when that cannot be.

    Nobody else can read the key, not even for a moment.
    """
    try:
        _write(config, file)
    except OSError as error:
        raise ConfigError(f"{file}: {error}") from error


def _write(config: Config, file: Path) -> None:
    file.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with os.fdopen(descriptor, "w") as opened:
        # A JSON string of printable ASCII is also a TOML string.
        opened.write(f"url = {json.dumps(config.url)}\nkey = {json.dumps(config.key)}\n")
    temporary.replace(file)


def forget(file: Path) -> None:
    """Remove the file; without one, nothing happens."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: {error}") from error
