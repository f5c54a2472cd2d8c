"""How users' code tells how far it is.

Owns: one small datagram to the runner of the lease. Does not own: what becomes of it. Reporting never blocks and never fails a
training run: outside a lease, or when the runner is busy, the report is dropped. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import socket

PROGRESS_BYTES_MAX = 4_096
METRICS_MAX = 32


def report_progress(*, step: int, total: int | None = None, **metrics: float | str) -> bool:
    """Report step `step` of `total` and a few named numbers; True when it was handed over.

    ValueError: more than 32 metrics, or more than 4,096 bytes as JSON.
    """
    if len(metrics) > METRICS_MAX:
        raise ValueError(f"metrics: at most {METRICS_MAX} in one report")
    report = {
        "step": int(step),
        "total": None if total is None else int(total),
        "metrics": {name: _plain(metrics[name]) for name in metrics},
    }
    message = json.dumps(report).encode()
    if len(message) > PROGRESS_BYTES_MAX:
        raise ValueError(f"progress: at most {PROGRESS_BYTES_MAX} bytes in one report")
    address = os.environ.get("TERRACE_PROGRESS_SOCKET")
    if address is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(message, address)
        except OSError:
            return False
    return True


def is_report(message: object) -> bool:
    """True for what `report_progress` sends; users' code can write anything to the socket."""
    if not isinstance(message, dict) or set(message) != {"step", "total", "metrics"} or not isinstance(message["metrics"], dict):
        return False
    values = message["metrics"].values()
    is_plain = len(values) <= METRICS_MAX and all(isinstance(value, int | float | str) for value in values)
    is_finite = all(math.isfinite(value) for value in values if isinstance(value, float))
    return is_plain and is_finite and isinstance(message["step"], int) and isinstance(message["total"], int | None)


def _plain(value: object) -> float | str:
    """Return the number that an array library's scalar holds; what is no finite number becomes text, because JSON has no NaN."""
    if isinstance(value, int | str):
        return value
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else str(number)
