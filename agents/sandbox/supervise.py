"""One lease on this machine from the agent's side: started, listened to, stopped, killed, proven gone.

Owns: the life of the process tree and the order of its events. Does not own: how it is launched (launch.py), what runs inside
(terrace.runtime), or whether its devices are idle (agents/idleness.py). Called by the node daemon, from any thread.

`start` once; `poll` again and again until it returned GONE; `stop` or `kill` at any time; `discard` after GONE. After a restart of
the agent `handles.leftovers` names what earlier agents started, and `end_leftover` kills it and says whether it is proven gone.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from agents.sandbox import handles, launch, messages, ownership, procfs
from agents.sandbox.spec import (
    START_MARGIN_MS,
    EventKind,
    FailureClass,
    Isolation,
    LeaseSpec,
    SandboxError,
    SandboxEvent,
    SandboxHandle,
    SandboxSettings,
)
from terrace.runtime import before_start

log = structlog.get_logger()

EVENTS_MAX = 256
LINE_BYTES_MAX = 512 * 1024
STOP_MARGIN_MS = 10_000
KILL_SECONDS_MAX = 10.0
KILL_POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 2_000
LEASE_MARK = "TERRACE_LEASE_ID"


class Sandbox:
    """One lease's process tree. Deadlines run on the monotonic clock; events carry the wall clock's time."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._events: collections.deque[SandboxEvent] = collections.deque()
        self._changed = threading.Condition()
        self._launched: launch.Launched | None = None
        self._handle: SandboxHandle | None = None
        self._has_said_hello = self._has_started = self._has_exited = self._is_gone_reported = self._is_stopping = self._is_closed = False
        self._is_killed = self._is_overdue = self._is_misunderstood = False
        self._users_part: str | None = None
        self._kill_at: float | None = None
        self._run_ms = 0

    @property
    def handle(self) -> SandboxHandle:
        """Who the process tree is; SandboxError before `start`."""
        if self._handle is None:
            raise SandboxError("sandbox: not started")
        return self._handle

    def start(self, spec: LeaseSpec) -> SandboxHandle:
        """Start the lease and return at once; SandboxError when this machine cannot, LeaseAlreadyStartedError on a second start."""
        launched = self._launched = launch.launch(spec, self._settings)
        try:
            self._remember(launched.handle)
        except OSError as error:
            _end_now(launched)
            raise SandboxError(f"sandbox: its handle cannot be written down: {error}") from error
        timeout_ms = spec.start_timeout_ms + START_MARGIN_MS + (self._settings.requirements_timeout_ms if spec.requirements_path else 0)
        self._users_part = "requirements" if spec.requirements_path else before_start.steering(spec.env)
        self._run_ms = spec.limit_ms + spec.grace_ms + STOP_MARGIN_MS
        self._kill_after(timeout_ms)
        threading.Thread(target=self._listen, name=f"sandbox-{spec.lease_id}", daemon=True).start()
        return self.handle

    def poll(self) -> list[SandboxEvent]:
        """Return what happened since the last call, in order. The last event ever is GONE."""
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._is_overdue = True
            self._end()
        with self._changed:
            events = list(self._events)
            self._events.clear()
            is_closed = self._is_closed
            self._changed.notify_all()
        if is_closed and not self._is_gone_reported and self.is_gone():
            self._is_gone_reported = True
            if not self._has_exited:
                self._has_exited = True
                events.append(self._unexplained_end())
            events.append(SandboxEvent(EventKind.GONE, _now_ms(), {}))
            if self._launched is not None:
                self._launched.close()
        return events

    def stop(self, grace_ms: int) -> None:
        """Give notice and SIGTERM now, kill after `grace_ms`. A second call changes nothing."""
        if self._is_stopping or self._launched is None:
            return
        self._is_stopping = True
        self._kill_after(grace_ms + STOP_MARGIN_MS)
        if not self._has_said_hello:
            self._end()  # still preparing: no code of the user's runs that would want notice
        self._say({"do": "stop", "grace_ms": grace_ms})

    def kill(self) -> None:
        """Kill the whole tree now. Events still come: an unexplained end, then GONE."""
        self._is_killed = True
        self._end()

    def is_gone(self) -> bool:
        """True when the process tree is proven gone."""
        if self._launched is not None:
            self._launched.process.poll()  # reaps our child, so that it is no zombie
        if is_gone(self.handle):
            return True
        if self.handle.isolation is Isolation.NONE and not procfs.is_alive(self.handle.pid, self.handle.pid_started_at_ticks):
            _kill(self.handle)
        return False

    def discard(self) -> None:
        """Delete the lease's directory, after GONE; the checkpoint directory that the service gave stays. SandboxError before."""
        if not self.is_gone():
            raise SandboxError("sandbox: its processes live, so its directory stays")
        discard(self.handle)

    def _end(self) -> None:
        if self._launched is not None:
            _kill(self.handle)
            with contextlib.suppress(OSError):
                self._launched.channel.shutdown(socket.SHUT_RDWR)

    def _remember(self, handle: SandboxHandle) -> None:
        self._handle = handle
        handles.write(handle, self._settings)

    def _kill_after(self, milliseconds: int) -> None:
        self._kill_at = time.monotonic() + milliseconds / 1_000

    def _say(self, message: dict[str, Any]) -> None:
        if self._launched is not None:
            with contextlib.suppress(OSError):
                self._launched.channel.sendall(json.dumps(message).encode() + b"\n")

    def _listen(self) -> None:
        assert self._launched is not None  # noqa: S101  # start() made it before this thread
        is_sound = False
        try:
            with self._launched.channel.makefile("rb") as lines:
                while line := lines.readline(LINE_BYTES_MAX):
                    self._take(*messages.checked(line))
            is_sound = True
        except (OSError, messages.MessageError) as error:
            self._is_misunderstood = True
            log.warning("a lease's runner is not understood and is killed", lease=self.handle.lease_id, error=str(error))
        finally:
            if not is_sound:
                _kill(self.handle)
            with self._changed:
                self._is_closed = True

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "hello":
            self._has_said_hello = True
            self._learn_first_process()
        elif kind == "listening":
            self._put(EventKind.WARNING, {"message": _port_warning(data["pids"])})
        elif kind == "started":
            if not self._has_started:
                self._has_started = True
                if not self._is_stopping:
                    self._kill_after(self._run_ms)  # the runner keeps the limit; this is for one that cannot any more
                self._put(EventKind.STARTED, data)
        elif kind == "exited":
            if not self._has_exited:
                self._has_exited = True
                self._put(EventKind.EXITED, data)
                self._kill_after(STOP_MARGIN_MS)
        else:
            self._put(EventKind(kind), data)

    def _put(self, kind: EventKind, data: dict[str, Any]) -> None:
        with self._changed:
            while len(self._events) >= EVENTS_MAX:
                self._changed.wait()
            self._events.append(SandboxEvent(kind, _now_ms(), data))

    def _learn_first_process(self) -> None:
        """Write down the first process of the lease's namespace before it may start anything: its end is the proof that all is gone."""
        handle = self.handle
        if handle.isolation is Isolation.NAMESPACES:
            first = procfs.only_child(handle.pid)
            started = procfs.started_at_ticks(first) if first is not None else None
            if first is None or started is None:
                return  # it just died; without a go nothing else was started
            self._remember(dataclasses.replace(handle, init_pid=first, init_started_at_ticks=started))
        self._say({"do": "go"})

    def _unexplained_end(self) -> SandboxEvent:
        failure, message = self._why_unexplained()
        data = {"exit_code": None, "failure_class": failure, "message": message, "was_stopped": self._is_stopping}
        return SandboxEvent(EventKind.EXITED, _now_ms(), data)

    def _why_unexplained(self) -> tuple[FailureClass | None, str]:
        """Return whose fault a silent end is: ours, unless the user's code ran or was about to and we did nothing."""
        words = f"the lease's processes ended without saying why; their last words: {self._last_words()}"
        if self._is_stopping:
            return None, "stopped on request"
        if self._is_killed or self._was_killed_from_outside():
            return FailureClass.PLATFORM, words
        if self._has_started:
            if self._is_overdue:
                return FailureClass.TIME_LIMIT, "the lease did not end at its time limit and was killed by its node"
            return FailureClass.USER_CODE, f"{words} (while the job's code ran)"
        if self._users_part is not None:
            return FailureClass.ENVIRONMENT, f"{words} (the job's own {self._users_part} came before the entrypoint)"
        return FailureClass.PLATFORM, words

    def _was_killed_from_outside(self) -> bool:
        """True when neither we nor the lease's code can have done it: from within a PID namespace nobody kills its first process."""
        code = None if self._launched is None else self._launched.process.returncode
        is_closed = self.handle.isolation is Isolation.NAMESPACES
        return is_closed and code == -signal.SIGKILL and not (self._is_overdue or self._is_misunderstood)

    def _last_words(self) -> str:
        """Return the end of what the first steps wrote, by the descriptor: the name is in users' hands."""
        assert self._launched is not None  # noqa: S101  # it ended, so it was started
        descriptor = self._launched.log.fileno()
        words = os.pread(descriptor, LOG_TAIL_BYTES, max(0, os.fstat(descriptor).st_size - LOG_TAIL_BYTES))
        return words.decode(errors="replace").replace("\0", "").strip() or "none"


def end_leftover(handle: SandboxHandle) -> bool:
    """Kill what is left of an earlier agent's lease; True when it is proven gone. Call again until it is."""
    if is_gone(handle):
        return True
    _kill(handle)
    return is_gone(handle)


def is_gone(handle: SandboxHandle) -> bool:
    """True when no process of the lease lives.

    With namespaces the proof is the end of the namespace's first process: the kernel reports it after every other member
    was killed. Without, no process may have the lease's user id (when it has its own), carry its mark, stand in its folders, or be the
    one that we started.
    """
    if handle.boot_id != procfs.boot_id():
        return True
    if procfs.is_alive(handle.pid, handle.pid_started_at_ticks):
        return False
    if handle.init_pid is not None and handle.init_started_at_ticks is not None:
        return not procfs.is_alive(handle.init_pid, handle.init_started_at_ticks)
    return not _members(handle)


def discard(handle: SandboxHandle) -> None:
    """Delete the directories of a lease that is gone, close its checkpoint directory until the next attempt, and forget its handle."""
    for folder in (handle.lease_dir, handle.temp_dir):
        if folder is not None:
            ownership.remove_tree(Path(folder))
    if handle.checkpoint_dir is not None:
        ownership.close_tree(Path(handle.checkpoint_dir), owner=handle.uid)
    handles.forget(handle)


def _members(handle: SandboxHandle) -> list[int]:
    """Return the living processes of a lease without a namespace: all of its user's, or else those with its mark or in its folders.

    Some of Ray's processes write their title over their environment, and the mark with it; they keep their log files open.
    """
    if handle.uid != os.geteuid():
        return procfs.owned_by(handle.uid)
    folders = [folder for folder in (handle.lease_dir, handle.temp_dir) if folder is not None]
    inside = procfs.holding(folders, since_ticks=handle.pid_started_at_ticks)
    return [pid for pid in {*procfs.marked_with(LEASE_MARK, handle.lease_id), *inside} if pid != os.getpid()]


def _kill(handle: SandboxHandle) -> None:
    known = ((handle.init_pid, handle.init_started_at_ticks), (handle.pid, handle.pid_started_at_ticks))
    for pid, started in known:
        if pid and started is not None:
            _kill_process(pid, started)
    if handle.init_pid is None:
        for pid in _members(handle):
            _kill_process(pid, procfs.started_at_ticks(pid))


def _kill_process(pid: int, started: int | None) -> None:
    """Kill that very process. The descriptor is taken before the start time is compared, so a recycled pid is never hit."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if started is not None and procfs.is_alive(pid, started):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _end_now(launched: launch.Launched) -> None:
    """Take back a start that could not be written down: nothing of it may live when its caller hears of the failure."""
    handle, deadline = launched.handle, time.monotonic() + KILL_SECONDS_MAX
    pause = threading.Event()
    while time.monotonic() < deadline:
        _kill(handle)
        launched.process.poll()
        if is_gone(handle):
            launched.close()
            with contextlib.suppress(OSError):
                discard(handle)
            return
        pause.wait(KILL_POLL_SECONDS)


def _port_warning(pids: list[int]) -> str:
    """Return the warning of a lease without a network of its own. Ray stays on loopback only where the machine has no other address."""
    ports = procfs.listening_ports(pids)
    everywhere = ", ".join(str(port) for address, port in ports if address != "loopback")
    local = ", ".join(str(port) for address, port in ports if address == "loopback")
    parts = [f"on every interface, ports {everywhere}" if everywhere else "", f"on loopback, ports {local}" if local else ""]
    return f"isolation none: this lease's Ray listens behind its token only: {'; '.join(part for part in parts if part) or 'nowhere yet'}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
