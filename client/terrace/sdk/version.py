"""The version of the installed client, as requests and `terrace --version` say it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def client_version() -> str:
    """Return the version, `unknown` where the client runs from a source tree that is not installed."""
    try:
        return version("terrace")
    except PackageNotFoundError:
        return "unknown"
