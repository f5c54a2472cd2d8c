"""Executors that break one promise each, named for it. Everything else they leave to a good one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from executors.base import Executor, FatalError, Handle, Order, Phase, RetryError, Status


class _Sinner:
    """Passes everything on to a good executor."""

    def __init__(self, good: Executor) -> None:
        self.good = good

    async def start(self, order: Order, /) -> Handle:
        return await self.good.start(order)

    async def stop(self, order: Order, /) -> None:
        await self.good.stop(order)

    async def status(self, orders: Sequence[Order], /) -> Mapping[str, Status]:
        return await self.good.status(orders)


class SlowToStart(_Sinner):
    """Its first start answers when `may_answer` is set, and has no effect before."""

    def __init__(self, good: Executor) -> None:
        super().__init__(good)
        self.may_answer = asyncio.Event()
        self.slow: str | None = None

    async def start(self, order: Order, /) -> Handle:
        self.slow = self.slow or order.lease_id
        if order.lease_id == self.slow:
            await self.may_answer.wait()
        return await self.good.start(order)


class NeverStops(_Sinner):
    """Takes every stop and does nothing about it."""

    def __init__(self, good: Executor) -> None:
        super().__init__(good)
        self.asked: list[str] = []

    async def stop(self, order: Order, /) -> None:
        self.asked.append(order.lease_id)


class ForgetsHandle(_Sinner):
    """Has forgotten the first `times` leases that it was asked to start, and started nothing."""

    def __init__(self, good: Executor, *, times: int = 1) -> None:
        super().__init__(good)
        self.left = times

    async def start(self, order: Order, /) -> Handle:
        if self.left > 0:
            self.left -= 1
            return {"executor": "forgetful", "lease": order.lease_id}
        return await self.good.start(order)


class FailsBetweenStartAndConnect(_Sinner):
    """Starts, and then says that it did not: to be tried again, or never."""

    def __init__(self, good: Executor, *errors: Exception) -> None:
        super().__init__(good)
        self.errors = list(errors) or [RetryError("no connection", delay_ms=5_000)]

    async def start(self, order: Order, /) -> Handle:
        handle = await self.good.start(order)
        if self.errors:
            raise self.errors.pop(0)
        return handle


class StartsTwice(_Sinner):
    """Takes every start for a new lease."""

    def __init__(self, good: Executor) -> None:
        super().__init__(good)
        self.count = 0

    async def start(self, order: Order, /) -> Handle:
        self.count += 1
        return {**await self.good.start(replace(order, lease_id=f"{order.lease_id}.{self.count}")), "number": self.count}


class SaysGoneTooEarly(_Sinner):
    """Believes that what was told to stop has stopped."""

    def __init__(self, good: Executor) -> None:
        super().__init__(good)
        self.told: set[str] = set()

    async def stop(self, order: Order, /) -> None:
        self.told.add(order.lease_id)
        await self.good.stop(order)

    async def status(self, orders: Sequence[Order], /) -> Mapping[str, Status]:
        statuses = await self.good.status(orders)
        return {lease: Status(Phase.GONE) if lease in self.told else status for lease, status in statuses.items()}


class StartsWhatWasStopped(_Sinner):
    """Forgets a stop of what it had not started."""

    def __init__(self, good: Executor) -> None:
        super().__init__(good)
        self.known: set[str] = set()

    async def start(self, order: Order, /) -> Handle:
        self.known.add(order.lease_id)
        return await self.good.start(order)

    async def stop(self, order: Order, /) -> None:
        if order.lease_id in self.known:
            await self.good.stop(order)


class AnswersForTheLast(_Sinner):
    """Answers for one lease only."""

    async def status(self, orders: Sequence[Order], /) -> Mapping[str, Status]:
        return await self.good.status(orders[-1:])


class KeepsObjects(_Sinner):
    """Returns a handle that no row can keep."""

    async def start(self, order: Order, /) -> Handle:
        return {**await self.good.start(order), "thread": object()}


NEVER = FatalError("the manifest is refused")
