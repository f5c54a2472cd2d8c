"""Machines: agents pull their assignments from the lease's rows, so the committed intent is all that there is to do.

Owns no effect. A lease that is bound is an assignment of its nodes' agents from that commit on, and one whose target is `stop` is being
stopped. What agents saw comes back as observations (store/observations.py); status says what became of them. Called by scheduler.service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from executors.base import FatalError, Handle, Order, Phase, Status
from store.engine import Store
from store.executions import Progress, ProgressOfLeases


class NodesExecutor:
    """Runs leases through node agents."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def start(self, order: Order, /) -> Handle:
        """Return where the lease runs; FatalError when it names no node."""
        if not order.nodes:
            raise FatalError(f"lease {order.lease_id} names no node")
        return {"executor": "nodes", "nodes": list(order.nodes)}

    async def stop(self, order: Order, /) -> None:
        """Check that the intent is committed, which is what agents follow; FatalError when it is not."""
        progress = (await self._store.read(ProgressOfLeases([order.lease_id]))).get(order.lease_id)
        if progress is not None and progress.target != "stop":
            raise FatalError(f"lease {order.lease_id}: nobody wrote down that it shall stop, so no agent will stop it")

    async def status(self, orders: Sequence[Order], /) -> Mapping[str, Status]:
        """Return what agents reported and the scheduler applied."""
        found = await self._store.read(ProgressOfLeases([order.lease_id for order in orders]))
        return {order.lease_id: _status(found.get(order.lease_id)) for order in orders}


def _status(progress: Progress | None) -> Status:
    if progress is None:
        return Status(Phase.ABSENT)
    return Status(
        _phase(progress),
        started_at_ms=progress.running_at_ms,
        exited_at_ms=progress.ended_at_ms,
        gone_at_ms=progress.released_at_ms,
    )


def _phase(progress: Progress) -> Phase:
    if progress.released_at_ms is not None:
        return Phase.GONE
    if progress.is_out_of_sight:
        return Phase.OUT_OF_SIGHT
    if progress.ended_at_ms is not None:
        return Phase.EXITED
    return Phase.STARTING if progress.running_at_ms is None else Phase.RUNNING
