"""Terrace for users: `terrace.Client` and its errors; `terrace.runtime` for code inside a job.

Importing this package loads nothing else: names are resolved on first use, so that a training script that only reports progress
needs no HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terrace.sdk.client import Client
    from terrace.sdk.errors import (
        ApiError,
        ConfigError,
        InputError,
        NotLoggedInError,
        PackingError,
        TerraceError,
        UnreachableError,
        WaitTimeoutError,
    )

_HOMES = {
    "Client": "terrace.sdk.client",
    "ApiError": "terrace.sdk.errors",
    "ConfigError": "terrace.sdk.errors",
    "InputError": "terrace.sdk.errors",
    "NotLoggedInError": "terrace.sdk.errors",
    "PackingError": "terrace.sdk.errors",
    "TerraceError": "terrace.sdk.errors",
    "UnreachableError": "terrace.sdk.errors",
    "WaitTimeoutError": "terrace.sdk.errors",
}

__all__ = [
    "ApiError",
    "Client",
    "ConfigError",
    "InputError",
    "NotLoggedInError",
    "PackingError",
    "TerraceError",
    "UnreachableError",
    "WaitTimeoutError",
]


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'terrace' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
