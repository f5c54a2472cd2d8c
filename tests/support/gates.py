"""Commands and questions that stop in the middle until a test lets them go on: what happens meanwhile is then no matter of luck."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from store.commands import Command, Query

SECONDS_MAXIMUM = 30


@dataclass
class Gate:
    """`arrived` is set when somebody stands at the gate; `open` lets them through."""

    arrived: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def stand(self) -> None:
        """Wait here for `open`."""
        self.arrived.set()
        assert self.opened.wait(SECONDS_MAXIMUM), "nobody opened the gate"

    def wait(self) -> None:
        """Wait until somebody stands at the gate."""
        assert self.arrived.wait(SECONDS_MAXIMUM), "nobody came to the gate"

    def open(self) -> None:
        """Let everybody through."""
        self.opened.set()


@dataclass
class Gated:
    """Does `inner` and then stands at the gate, inside the transaction."""

    inner: Command[Any] | None
    gate: Gate

    def execute(self, connection: Connection, /) -> Any:
        result = self.inner.execute(connection) if self.inner is not None else None
        self.gate.stand()
        return result


@dataclass
class AskedTwice:
    """Answers `inner`, stands at the gate, and answers it again."""

    inner: Query[Any]
    gate: Gate

    def fetch(self, connection: Connection, /) -> tuple[Any, Any]:
        first = self.inner.fetch(connection)
        self.gate.stand()
        return first, self.inner.fetch(connection)
