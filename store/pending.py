"""A command on its way to the database: who waits for its outcome, and how a thread waits.

What both writers (store/sqlite.py, store/postgres.py) promise: a command that was accepted is done, also when nobody waits for it any more;
its outcome is told once, after it is durable; a full or closing writer refuses with StoreBusyError and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from store.commands import Command

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that waits for its turn, and who waits for its outcome."""

    command: Command[Any]
    done: Callable[[Any, BaseException | None], None]

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Tell the outcome. Whoever waited may be gone (its event loop closed): that must not stop the writer."""
        if error is not None and (isinstance(error, StopIteration) or not isinstance(error, Exception)):
            error = RuntimeError(f"the command raised {error!r}")  # a future would not carry it, or its loop would end by it
        try:
            self.done(result, error)
        except Exception:  # noqa: BLE001  whatever the waiter's trouble is, the writer goes on
            log.warning("nobody took the outcome of a command", command=type(self.command).__name__)


class Writer(Protocol):
    """Takes commands and does them durably."""

    @property
    def waiting(self) -> int:
        """Commands that were accepted and are not done yet, those under way not counted."""
        ...

    def submit(self, pending: Pending) -> None:
        """Accept a command or raise StoreBusyError. Returns at once."""
        ...

    def close(self) -> None:
        """Refuse from now on, finish what was accepted, and let go of the database."""
        ...


def run_and_wait(writer: Writer, command: Command[Any]) -> Any:
    """Hand in a command from a thread and wait for its outcome."""
    future: Future[Any] = Future()

    def done(result: Any, error: BaseException | None) -> None:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    writer.submit(Pending(command, done))
    return future.result()
