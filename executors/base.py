"""What an executor is: start a lease, stop it, say how far it got.

An executor turns a committed lease into a running private cluster: `nodes` through the agents of machines, `fake` in a caller's clock. It
decides nothing and owns no rows. The scheduler commits what it wants, then asks, then records what was seen; it may crash between any two
of these, so every call may come twice, and after a crash half-way.

What every executor promises, one test each in tests/executors/test_conformance.py:
1. An effect is named by the lease: a second start finds the first and returns the same handle.
2. A handle is JSON, and returned as early as possible. Everything works without one, because it may be lost.
3. Stop gives notice now and ends the run within the grace. Stopping twice, or what never started, is no error.
4. A start that arrives after a stop starts nothing: a late word of a leader that lost its lead must do no harm.
5. Status answers for many at once and for nothing that was not asked. It says GONE only when that is proven: no process of the lease is
   left and its devices are idle. What cannot be seen is OUT_OF_SIGHT, which frees nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

Handle = Mapping[str, Any]


class RetryError(Exception):
    """It did not work now and may work in `delay_ms`. The effect may be there or not: the same call will find out."""

    def __init__(self, message: str, *, delay_ms: int) -> None:
        super().__init__(message)
        self.delay_ms = delay_ms


class FatalError(Exception):
    """It will never work: the lease must be stopped, because the effect may be there nevertheless."""


class Phase(StrEnum):
    """How far a lease's run got."""

    ABSENT = "absent"  # proven: nothing exists under the lease's name
    STARTING = "starting"
    RUNNING = "running"  # the entrypoint was seen
    EXITED = "exited"  # the entrypoint ended; processes may be left
    GONE = "gone"  # proven: no process is left and the devices are idle
    OUT_OF_SIGHT = "out_of_sight"  # nobody can tell now


@dataclass(frozen=True, slots=True)
class Status:
    """One lease's phase, when it came to it, and how it ended. Times are the executor's; None where nobody saw."""

    phase: Phase
    started_at_ms: int | None = None
    exited_at_ms: int | None = None
    gone_at_ms: int | None = None
    exit_code: int | None = None
    failure_class: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A lease as an executor sees it. `nodes` are names, the head's first; `handle` is None until a start returned one and it was kept.

    What else it takes to run it (entrypoint, archive, slices, token) an executor or an agent reads from the lease's rows.
    """

    lease_id: str
    tenant_id: str
    job_id: str
    attempt: int
    nodes: tuple[str, ...]
    limit_ms: int
    grace_ms: int
    handle: Handle | None = None


class Executor(Protocol):
    """What the scheduler asks of one."""

    async def start(self, order: Order, /) -> Handle:
        """Make the lease run, once however often this is called, and return its handle without waiting for the run."""
        ...

    async def stop(self, order: Order, /) -> None:
        """Give notice now and make an end within `order.grace_ms`; return without waiting for it."""
        ...

    async def status(self, orders: Sequence[Order], /) -> Mapping[str, Status]:
        """Return the status of each of these leases, by lease."""
        ...
