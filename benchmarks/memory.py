"""Memory of the idle service: proportional set size of each process of `terraced up`, with no job.

The proportional set size counts shared pages once between the processes that share them, so the sum is what the machine really gives.
Prints one JSON row per process (the agent's row is the memory of one idle agent) and their sum.
"""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path

import psutil

from benchmarks.embedded import embedded

SETTLE_SECONDS = 5
MEBIBYTE = 1 << 20


def main() -> None:
    """Measure once, after the service has been idle for `SETTLE_SECONDS`."""
    parser = argparse.ArgumentParser(description="Measure the memory of the idle service.")
    parser.add_argument("--job-python", type=Path, required=True)
    options = parser.parse_args()
    with embedded(options.job_python) as service:
        threading.Event().wait(SETTLE_SECONDS)
        parent = psutil.Process(service.pid)
        sizes = {"supervisor": parent.memory_full_info().pss}
        for child in parent.children():
            sizes[child.cmdline()[-1]] = child.memory_full_info().pss
    sizes["whole service"] = sum(sizes.values())
    for name, size in sizes.items():
        print(json.dumps({"bench": "memory", "case": f"{name}, idle", "figure": round(size / MEBIBYTE, 1), "unit": "MiB PSS"}))


if __name__ == "__main__":
    main()
