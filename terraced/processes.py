"""Processes of the embedded service that live and die together.

Owns: starting children with the supervisor's death tied to theirs, restarting one that fails, stopping all in a stated
order. Does not own: what a child does. Called by `terraced/up.py`. A child calls `die_with_parent` first thing: the
kernel then kills it when the supervisor is gone, kill -9 included, so that nothing runs unsupervised.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

PR_SET_PDEATHSIG = 1
RESTARTS_MAXIMUM = 5
RESTART_WINDOW_SECONDS = 60.0
RESTART_DELAY_SECONDS = 0.5
SUPERVISOR_PID_VARIABLE = "TERRACED_SUPERVISOR_PID"


class ChildGaveUpError(Exception):
    """A child failed more often than `RESTARTS_MAXIMUM` times within `RESTART_WINDOW_SECONDS`."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its supervisor dies. Does nothing when started without one."""
    supervisor = os.environ.get(SUPERVISOR_PID_VARIABLE)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(supervisor):  # it died between our start and the call above
        os._exit(1)


@dataclass
class Child:
    """One supervised process: its arguments, how long it may take to stop, and its recent restarts."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    stop_seconds: float
    process: subprocess.Popen[bytes] | None = None
    restarted_at: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the process. Its own process group keeps a terminal's Ctrl-C for the supervisor to hand on in order."""
        environment = {**os.environ, **self.environment, SUPERVISOR_PID_VARIABLE: str(os.getpid())}
        self.process = subprocess.Popen(self.arguments, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self.process is not None and self.process.poll() is None

    async def stop(self) -> None:
        """Ask the process to end, wait `stop_seconds`, then kill it."""
        if self.process is None or not self.is_alive:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(self.stop_seconds):
                await asyncio.to_thread(self.process.wait)
        except TimeoutError:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)


async def supervise(children: list[Child], stop: asyncio.Event, on_restart: Callable[[Child, int], Awaitable[None]]) -> None:
    """Restart children that end until `stop` is set; raise `ChildGaveUpError` when one keeps failing."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        for child in children:
            if child.is_alive:
                continue
            code = child.process.returncode if child.process else -1
            now = loop.time()
            child.restarted_at = [moment for moment in child.restarted_at if now - moment < RESTART_WINDOW_SECONDS] + [now]
            if len(child.restarted_at) > RESTARTS_MAXIMUM:
                raise ChildGaveUpError(
                    f"{child.name} ended {len(child.restarted_at)} times in {RESTART_WINDOW_SECONDS:.0f} s, last with {code}"
                )
            await on_restart(child, code)
            child.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESTART_DELAY_SECONDS):
                await stop.wait()


async def stop_in_order(children: list[Child]) -> None:
    """Stop the children one after the other: whoever reports to another stops before it."""
    for child in children:
        await child.stop()
