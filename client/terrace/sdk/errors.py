"""What can go wrong between a caller and the service, as exceptions.

`TerraceError` is the base of all of them. Refusals carry the service's problem (code, fields, limits); the command line turns these
classes into exit codes, nothing else looks at their sentences.
"""

from __future__ import annotations

from terrace.models.common import Problem

PASSING_STATUSES = frozenset({429, 502, 503, 504})


class TerraceError(Exception):
    """Base of everything that the SDK raises on purpose."""


class ApiError(TerraceError):
    """The service refused, or failed with an answer. `problem` is what it said; `problem.code` is stable."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail or problem.title}")
        self.problem = problem

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self.problem.status

    @property
    def is_passing(self) -> bool:
        """True when the same request may be accepted a moment later: a rate, a restart, a proxy without its service."""
        return self.status in PASSING_STATUSES

    @property
    def code(self) -> str:
        """The stable code of the refusal."""
        return self.problem.code


class UnreachableError(TerraceError):
    """The service did not answer after every retry; what was asked may or may not have happened. Asking again is safe."""


class ConfigError(TerraceError):
    """There is no URL or no key, or the configuration file is broken; the message names the setting."""


class NotLoggedInError(ConfigError):
    """There is no key: nobody has logged in here."""


class InputError(TerraceError):
    """What was given cannot be sent. `field` names it, `limit` is the bound that it broke, where there is one."""

    def __init__(self, field: str, message: str, *, limit: object = None) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.limit = limit


class PackingError(TerraceError):
    """The working directory cannot be sent; the message names the path and the limit."""


class WaitTimeoutError(TerraceError):
    """The job had not ended when the caller's patience was over. The job goes on."""
