"""Why did the entrypoint end? From what was seen to a failure class; pure.

Owns: the rules and the marks of memory exhaustion. Does not own: seeing (runner.py) or who pays (the service). A process that was killed
with signal 9 counts as out of memory only with evidence: anybody can send signal 9.
"""

from __future__ import annotations

from dataclasses import dataclass

SIGKILL_CODES = {-9, 137}
NOT_FOUND_CODES = {126, 127}
MEMORY_MARKS = (
    "ray.exceptions.OutOfMemoryError",
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "\nMemoryError",
    "_ArrayMemoryError",
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What was seen at the end. `is_stopped` and `is_over_time` say that the lease, not the code, came to its end first."""

    exit_code: int | None
    is_stopped: bool = False
    is_over_time: bool = False
    is_over_memory: bool = False
    kernel_memory_kills: int = 0
    output_tail: str = ""
    platform_error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failure_class` None: succeeded, or stopped on request."""

    exit_code: int | None
    failure_class: str | None
    message: str


def judge(ending: Ending) -> Verdict:
    """Return why the entrypoint ended, the surest evidence first."""
    code = ending.exit_code
    if ending.is_over_memory:
        return Verdict(code, "out_of_memory", ending.platform_error or "the lease's memory was exceeded")
    if ending.is_over_time:
        return Verdict(code, "time_limit", "the time limit was reached")
    if ending.is_stopped:
        return Verdict(code, None, "stopped on request")
    if ending.platform_error is not None:
        return Verdict(code, "platform", ending.platform_error)
    if code == 0:
        return Verdict(0, None, "succeeded")
    if code is None:
        return Verdict(None, "platform", "the entrypoint ended and Ray does not know its exit code")
    if code in SIGKILL_CODES and ending.kernel_memory_kills > 0:
        return Verdict(code, "out_of_memory", "the kernel killed for lack of memory while the job ran, and the entrypoint was killed")
    mark = next((mark for mark in MEMORY_MARKS if mark in "\n" + ending.output_tail), None)
    if mark is not None:
        return Verdict(code, "out_of_memory", f"the entrypoint exited with {code} after {mark.strip()}")
    if code in NOT_FOUND_CODES:
        return Verdict(code, "user_code", f"the entrypoint exited with {code}: its program was not found or cannot be executed")
    if code < 0:
        return Verdict(code, "user_code", f"the entrypoint was ended by signal {-code}")
    return Verdict(code, "user_code", f"the entrypoint exited with {code}")
