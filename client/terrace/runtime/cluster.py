"""The conversation with the lease's Ray head, in a thread, so that a slow answer delays no deadline.

Owns: waiting for the head, submitting once, asking until Ray knows the end, passing on a stop. Does not own: the head's process, time
limits or the verdict (runner.py reads the fields). A field is set once, then `wake` is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from terrace.runtime.jobs_api import JobsApi, JobsApiError

T = TypeVar("T")

READY_POLL_SECONDS = 0.05
STATUS_POLL_SECONDS = 2.0
EXIT_POLL_SECONDS = 0.05
RETRY_SECONDS = 0.25
FAILURES_MAX = 20
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


class Cluster(threading.Thread):
    """One submission's way through Ray. `ray_version` once it answers, `job` once Ray calls it ended, `error` when Ray fails us."""

    def __init__(self, api: JobsApi, *, submission_id: str, entrypoint: str, wake: Callable[[], None]) -> None:
        super().__init__(name="cluster", daemon=True)
        self._api = api
        self._submission_id = submission_id
        self._entrypoint = entrypoint
        self._wake = wake
        self._poke = threading.Event()
        self._is_stop_wanted = False
        self._is_entrypoint_gone = False
        self.ray_version: str | None = None
        self.job: dict[str, Any] | None = None
        self.error: str | None = None

    def entrypoint_is_gone(self) -> None:
        """Say that the process ended: Ray is now asked often, because it alone knows the exit code."""
        self._is_entrypoint_gone = True
        self._poke.set()

    def stop(self) -> None:
        """Have Ray send SIGTERM to the entrypoint."""
        self._is_stop_wanted = True
        self._poke.set()

    def run(self) -> None:
        """Go through it all; ends with `job` or `error` set."""
        try:
            self._wait_until_ready()
            self._retrying(lambda: self._api.submit_once(self._submission_id, self._entrypoint))
            self.job = self._follow()
        except JobsApiError as error:
            self.error = str(error)
        self._wake()

    def _wait_until_ready(self) -> None:
        pause = threading.Event()
        while (version := self._api.version()) is None:
            pause.wait(READY_POLL_SECONDS)  # without end here: the runner's start timeout ends the process
        self.ray_version = version
        self._wake()

    def _follow(self) -> dict[str, Any]:
        while True:
            self._poke.wait(EXIT_POLL_SECONDS if self._is_entrypoint_gone else STATUS_POLL_SECONDS)
            self._poke.clear()
            if self._is_stop_wanted:
                self._is_stop_wanted = False
                self._retrying(lambda: self._api.stop(self._submission_id))
            job = self._retrying(lambda: self._api.job(self._submission_id))
            if job is None:
                raise JobsApiError("Ray forgot the job")
            if job.get("status") in ENDED:
                return job

    def _retrying(self, ask: Callable[[], T]) -> T:
        for _ in range(FAILURES_MAX - 1):
            try:
                return ask()
            except JobsApiError:
                self._poke.wait(RETRY_SECONDS)
        return ask()
