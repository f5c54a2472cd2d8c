"""How users' code tells how far it is, and what of it is saved.

Owns: one small datagram to the runner of the lease. Does not own: what becomes of it. Reporting never fails a training run, and progress
never blocks it: outside a lease, or when the runner is busy, the report is dropped. A checkpoint's report waits a moment for a busy runner,
because the scheduler chooses whom to preempt by what is lost. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Mapping

PROGRESS_BYTES_MAX = 4_096
METRICS_MAX = 32
NUMBER_MAX = 1 << 53  # what every reader of JSON holds exactly
CHECKPOINT_SECONDS_MAX = 1.0
FIELDS = {"step", "total", "metrics"}


def report_progress(*, step: int, total: int | None = None, **metrics: float | str) -> bool:
    """Report step `step` of `total` and a few named numbers; True when it was handed over.

    ValueError: more than 32 metrics, more than 4,096 bytes as JSON, or a step or total beyond 2^53.
    """
    return _send(_report(step, total, metrics), wait_seconds=0.0)


def report_checkpoint(*, step: int, total: int | None = None, **metrics: float | str) -> bool:
    """Report that everything through step `step` is saved in the checkpoint directory; counts as a progress report too.

    Call it after the file is in its place: from here on a preemption is taken to lose only what comes later. True when it was handed
    over; a busy runner is waited for, a second at most. ValueError as in `report_progress`.
    """
    return _send({**_report(step, total, metrics), "checkpoint": True}, wait_seconds=CHECKPOINT_SECONDS_MAX)


def is_report(message: object) -> bool:
    """True for what the functions above send; users' code can write anything to the socket."""
    if not isinstance(message, dict) or set(message) - {"checkpoint"} != FIELDS or not isinstance(message["metrics"], dict):
        return False
    metrics = message["metrics"]
    are_metrics_sound = len(metrics) <= METRICS_MAX and all(_is_sound(name) and _is_sound(value) for name, value in metrics.items())
    is_counted = isinstance(message["step"], int) and isinstance(message["total"], int | None)
    is_marked = message.get("checkpoint", True) is True
    return are_metrics_sound and is_counted and is_marked and _is_sound(message["step"]) and _is_sound(message["total"] or 0)


def is_checkpoint(report: Mapping[str, object]) -> bool:
    """True for a report that names what is saved: whoever thins out reports keeps the newest of these."""
    return report.get("checkpoint") is True


def _report(step: int, total: int | None, metrics: Mapping[str, float | str]) -> dict[str, object]:
    if len(metrics) > METRICS_MAX:
        raise ValueError(f"metrics: at most {METRICS_MAX} in one report")
    counted = {"step": int(step), "total": None if total is None else int(total)}
    if any(abs(number or 0) > NUMBER_MAX for number in counted.values()):
        raise ValueError(f"step, total: at most {NUMBER_MAX}")
    return {**counted, "metrics": {_clean(name): _plain(metrics[name]) for name in metrics}}


def _send(report: Mapping[str, object], *, wait_seconds: float) -> bool:
    message = json.dumps(report).encode()
    if len(message) > PROGRESS_BYTES_MAX:
        raise ValueError(f"progress: at most {PROGRESS_BYTES_MAX} bytes in one report")
    address = os.environ.get("TERRACE_PROGRESS_SOCKET")
    if address is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(wait_seconds)
        try:
            sender.sendto(message, address)
        except OSError:
            return False
    return True


def _is_sound(value: object) -> bool:
    """True for a number that JSON can hold, and for text that can be encoded and kept."""
    if isinstance(value, str):
        return value == _clean(value)
    if isinstance(value, int):
        return abs(value) <= NUMBER_MAX
    return isinstance(value, float) and math.isfinite(value)


def _plain(value: object) -> float | str:
    """Return the number that an array library's scalar holds; what is no finite number becomes text, because JSON has no NaN."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int):
        return value if abs(value) <= NUMBER_MAX else str(value)
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else str(number)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "")
