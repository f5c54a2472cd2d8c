"""How the store refuses: typed errors with data, which the API turns into problems.

`RefusalError` is a business refusal: nothing was changed. Each subclass has one HTTP meaning (404, 409, 403, 422); the
mapping lives in api/problems.py.
"""

from __future__ import annotations


class RefusalError(Exception):
    """A change was refused. `code` is stable and machine readable; `data` holds the numbers behind the sentence."""

    def __init__(self, code: str, message: str, **data: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class NotFoundError(RefusalError):
    """There is no such row, or it is somebody else's: the answer is the same."""


class ConflictError(RefusalError):
    """The row is in a state, or already exists, so that the change makes no sense."""


class ForbiddenError(RefusalError):
    """The principal's role or scope does not allow this."""


class InvalidError(RefusalError):
    """A field's value is well formed but breaks a limit that rows know; `data` names `field` and `limit`, or `limit_ms` for a moment."""


class StaleError(RefusalError):
    """The row moved on since it was read (version, fence or target): drop the result, do not force it."""


class StoreBusyError(RefusalError):
    """The write queue is full or closing: nothing was changed, trying again later is right."""
