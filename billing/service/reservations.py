"""Counting what capacity reservations left unused: one window after another, each once, from the leases as they were.

Owns the round. The sums are billing/calc/reservations.py's, the rows store/reservation_use.py's. Needs no leader: who comes second finds
the window counted. The billing loop calls it.
"""

from __future__ import annotations

from billing.calc.reservations import unused_milli_gpu_ms
from store.engine import Store
from store.reservation_use import CountWindow, WindowsToCount


async def count_once(store: Store, *, now_ms: int) -> int:
    """Count at most one window of each reservation; return how many were counted."""
    counted = 0
    for window in await store.read(WindowsToCount(now_ms)):
        unused = unused_milli_gpu_ms(window.milli_gpu, window.start_ms, window.end_ms, window.held)
        counted += await store.run(CountWindow(window, unused))
    return counted
