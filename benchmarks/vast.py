"""One decision after another on 100,000 nodes of 8 GPUs with 1,000,000 queued jobs, beside a tenth of that: time by decision and memory.

Pure, like benchmarks.decision, in a process of its own so that the peak of memory is this world's. A decision is a start or a class that
was told why it waits; its cost should not grow with the fleet. Prints JSON rows for `make bench`.
"""

from __future__ import annotations

import json
import resource
import statistics
import time

from benchmarks.decision import Busy
from scheduler.decision.decide import decide

TENANTS = 500
SHAPES_PER_TENANT = 4
CYCLES = 5
CHANGES = 1_000  # ends and arrivals before each decision


def measure(nodes: int, queued: int) -> tuple[float, float, str]:
    """Return (milliseconds of a pass, microseconds by decision, note) as medians."""
    world = Busy(nodes=nodes, tenants=TENANTS, queued=queued, shapes_per_tenant=SHAPES_PER_TENANT, busy=1.0)
    passes, costs = [], []
    for _ in range(CYCLES):
        world.end(CHANGES)
        world.arrive(CHANGES)
        view = world.snapshot()
        began = time.perf_counter()
        plan = decide(view)
        seconds = time.perf_counter() - began
        passes.append(seconds * 1_000)
        costs.append(seconds * 1_000_000 / (len(plan.starts) + len(plan.reasons)))
        world.follow(plan)
    return statistics.median(passes), statistics.median(costs), f"{len(world.running):,} leases, {len(world.queues):,} classes"


def main() -> None:
    """Print a row per world, the large one beside the smaller."""
    small_ms, small_us, small_note = measure(10_000, 100_000)
    print(json.dumps({"bench": "vast", "case": "10,000 nodes, 100,000 jobs: a pass", "figure": round(small_ms, 1), "unit": "ms",
                      "note": f"{small_us:.0f} us a decision; {small_note}"}), flush=True)  # fmt: skip
    large_ms, large_us, large_note = measure(100_000, 1_000_000)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    row = {
        "bench": "vast", "case": "100,000 nodes, 1,000,000 jobs: cost of a decision", "figure": round(large_us, 1), "unit": "us",
        "peer": "the smaller world, same run", "peer_figure": round(small_us, 1), "ratio": round(large_us / small_us, 2),
        "note": f"{large_ms:.0f} ms a pass; {large_note}; peak memory {peak_mib:,} MiB",
    }  # fmt: skip
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
