"""Why did the entrypoint end? From what was seen to a failure class; pure.

Owns: the rules and the marks of memory exhaustion. Does not own: seeing (runner.py) or who pays (the service). A process that was killed
with signal 9 counts as out of memory only with evidence: anybody can send signal 9. Ray runs as the user that the job's code runs as, which
can end it at will; so once that code could run, an end of Ray is the code's. The platform answers for what it has to itself.
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
    """What was seen at the end. `is_stopped` and `is_over_time` say that the lease, not the code, came to its end first.

    `cluster_error`: what became of Ray. `has_run`: the entrypoint did, or what would tell was touched. `users_part`: what of the user's
    was in use before (before_start.py).
    """

    exit_code: int | None
    is_stopped: bool = False
    is_over_time: bool = False
    is_over_memory: bool = False
    over_disk: str | None = None
    kernel_memory_kills: int = 0
    output_tail: str = ""
    cluster_error: str | None = None
    has_run: bool = True
    users_part: str | None = None


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
        return Verdict(code, "out_of_memory", ending.cluster_error or "the lease's memory was exceeded")
    if ending.over_disk is not None:
        return Verdict(code, "user_code", ending.over_disk)
    if ending.is_over_time:
        return Verdict(code, "time_limit", "the time limit was reached")
    if ending.is_stopped:
        return Verdict(code, None, "stopped on request")
    if ending.cluster_error is not None:
        return _judge_cluster(ending, ending.cluster_error)
    if code == 0:
        return Verdict(0, None, "succeeded")
    if code is None:
        return _judge_cluster(ending, "the entrypoint ended and Ray does not know its exit code")
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


def _judge_cluster(ending: Ending, words: str) -> Verdict:
    """Return whose fault it is that the cluster failed: before the job's code could run it is ours."""
    if ending.has_run:
        return Verdict(ending.exit_code, "user_code", f"{words} (while the job's code ran, which shares a user with Ray)")
    if ending.users_part is not None:
        return Verdict(ending.exit_code, "environment", f"{words} (the job brought {ending.users_part}, which runs before the entrypoint)")
    return Verdict(ending.exit_code, "platform", words)
