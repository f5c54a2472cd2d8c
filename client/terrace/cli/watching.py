"""What a person sees while waiting: one line on standard error that says how the job stands.

Owns the line and the thread that keeps it true. On a terminal the line is rewritten in place and steps aside for output; elsewhere a new
line is written when the state or the reason changes. Standard output carries the job's output and nothing else. Does not own the outcome of
the wait.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from terrace import reasons, units
from terrace.cli import tables
from terrace.cli.text import printable
from terrace.models.jobs import JobDetail, JobState, LogPiece
from terrace.sdk.errors import ApiError, UnreachableError

if TYPE_CHECKING:
    from terrace.sdk.client import Client

POLL_SECONDS = 1.0
STOP_SECONDS_MAXIMUM = 5.0
_CLEAR = "\r\x1b[K"


class StatusLine:
    """One line on standard error. Safe from several threads."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._shown = ""
        self._said = ""
        self._is_at_line_start = True

    def show(self, text: str, *, milestone: str) -> None:
        """Show `text`. Where there is no terminal, only when `milestone` differs from the last one."""
        text = printable(text)
        with self._lock:
            if self._is_terminal:
                self._draw(text)
            elif milestone != self._said:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()
            self._said = milestone

    def clear(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._is_terminal and self._shown:
                self._draw("")

    def write(self, text: str) -> None:
        """Write output to standard output, with the line out of its way."""
        with self._lock:
            shown = self._shown
            if self._is_terminal and shown:
                self._draw("")
            sys.stdout.write(text)
            sys.stdout.flush()
            self._is_at_line_start = text.endswith("\n")
            if self._is_terminal and shown:
                self._draw(shown)

    def _draw(self, text: str) -> None:
        self._shown = text
        if text and not self._is_at_line_start:
            return  # the output stands in the middle of a line; the next whole line makes room
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(_CLEAR + text[:width])
        sys.stderr.flush()


class Watch:
    """Keeps a status line true for one job, from a thread, until it is left."""

    def __init__(self, client: Client, job_id: str, line: StatusLine) -> None:
        self._client, self._job_id, self._line = client, job_id, line
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        """Start to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to watch and take the line away."""
        self._is_over.set()
        self._thread.join(STOP_SECONDS_MAXIMUM)
        self._line.clear()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._is_over.is_set():
            try:
                job = self._client.job(self._job_id)
            except UnreachableError as error:
                self._line.show(f"{self._job_id}: {error}; trying again", milestone="unreachable")
            except ApiError as error:
                if not error.is_passing:
                    return  # whoever waits is told the same, and says it
                self._line.show(f"{self._job_id}: {error}; trying again", milestone="unreachable")
            else:
                if not self._is_over.is_set():
                    seconds = int(time.monotonic() - began)
                    self._line.show(describe(job, seconds), milestone=f"{job.state} {job.attempt} {job.reason.code if job.reason else ''}")
            self._is_over.wait(POLL_SECONDS)


def describe(job: JobDetail, watched_seconds: int) -> str:
    """Return how a job stands: why it waits and until when, or how far it is."""
    words = f"{job.id}  {job.state.value}  {units.duration_about(watched_seconds)}"
    if job.reason is not None:
        why = reasons.sentence(job.reason.code, job.reason.data)
        return f"{words}  {why} {reasons.forecast(job.forecast, reasons.now_utc())}"
    if job.state is JobState.RUNNING:
        return "  ".join([words, *([f"attempt {job.attempt}"] if job.attempt > 1 else []), tables.progress(job.progress) or ""]).rstrip()
    return words


def follow(client: Client, job_id: str) -> JobDetail:
    """Show how a job stands, and its output, until it has ended; return it."""
    line = StatusLine()
    with Watch(client, job_id, line):
        write_pieces(line, client.logs(job_id, follow=True))
        return client.wait(job_id)


def write_pieces(line: StatusLine, pieces: Iterable[LogPiece]) -> None:
    """Write output as it comes."""
    for piece in pieces:
        line.write(piece.text)


class Upload:
    """Says how far an upload is, on a terminal."""

    def __init__(self) -> None:
        self._line = StatusLine()

    def __call__(self, sent_bytes: int, total_bytes: int) -> None:
        """Show `sent_bytes` of `total_bytes`; the line goes away with the last byte."""
        if not sys.stderr.isatty():
            return
        if sent_bytes >= total_bytes:
            self._line.clear()
        else:
            text = f"sending {units.memory_about(sent_bytes)} of {units.memory_about(total_bytes)}"
            self._line.show(text, milestone="sending")
