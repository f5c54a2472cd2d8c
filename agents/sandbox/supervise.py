"""One lease on this machine from the agent's side: started, listened to, stopped, killed, proven gone.

Owns: the life of the process tree and the order of its events. Does not own: how it is launched (launch.py), what runs inside
(terrace.runtime), or whether its devices are idle (agents/idleness.py). Called by the node daemon, from any thread.

`start` once; `poll` again and again until it returned GONE; `stop` or `kill` at any time; `discard` after GONE. After a restart of
the agent `leftovers` names what earlier agents started, and `end_leftover` kills it and says whether it is proven gone.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from agents.sandbox import launch, procfs
from agents.sandbox.spec import EventKind, FailureClass, Isolation, LeaseSpec, SandboxError, SandboxEvent, SandboxHandle, SandboxSettings

EVENTS_MAX = 4_096
LINE_BYTES_MAX = 512 * 1024
STOP_MARGIN_MS = 10_000
START_MARGIN_MS = 15_000
LOG_TAIL_BYTES = 2_000
HANDLE_FILE = "handle.json"
LEASE_MARK = "TERRACE_LEASE_ID"


class Sandbox:
    """One lease's process tree."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._events: collections.deque[SandboxEvent] = collections.deque()
        self._changed = threading.Condition()
        self._launched: launch.Launched | None = None
        self._handle: SandboxHandle | None = None
        self._has_said_hello = self._has_exited = self._is_gone_reported = self._is_stopping = self._is_closed = False
        self._kill_at_ms: int | None = None

    @property
    def handle(self) -> SandboxHandle:
        """Who the process tree is; SandboxError before `start`."""
        if self._handle is None:
            raise SandboxError("sandbox: not started")
        return self._handle

    def start(self, spec: LeaseSpec) -> SandboxHandle:
        """Start the lease and return at once; SandboxError when this machine cannot, LeaseAlreadyStartedError on a second start."""
        self._launched = launch.launch(spec, self._settings)
        self._remember(self._launched.handle)
        timeout_ms = spec.start_timeout_ms + START_MARGIN_MS + (self._settings.requirements_timeout_ms if spec.requirements_path else 0)
        self._kill_at_ms = _now_ms() + timeout_ms
        threading.Thread(target=self._listen, name=f"sandbox-{spec.lease_id}", daemon=True).start()
        return self.handle

    def poll(self) -> list[SandboxEvent]:
        """Return what happened since the last call, in order. The last event ever is GONE."""
        if self._kill_at_ms is not None and _now_ms() > self._kill_at_ms:
            self.kill()
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
        return events

    def stop(self, grace_ms: int) -> None:
        """Give notice and SIGTERM now, kill after `grace_ms`. A second call changes nothing."""
        if self._is_stopping or self._launched is None:
            return
        self._is_stopping = True
        self._kill_at_ms = _now_ms() + grace_ms + STOP_MARGIN_MS
        if not self._has_said_hello:
            self.kill()  # still preparing: no code of the user's runs that would want notice
        self._say({"do": "stop", "grace_ms": grace_ms})

    def kill(self) -> None:
        """Kill the whole tree now. Events still come: an unexplained end, then GONE."""
        if self._launched is not None:
            _kill(self.handle)
            with contextlib.suppress(OSError):
                self._launched.channel.shutdown(socket.SHUT_RDWR)

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

    def _remember(self, handle: SandboxHandle) -> None:
        self._handle = handle
        _write_handle(handle, self._settings)

    def _say(self, message: dict[str, Any]) -> None:
        if self._launched is not None:
            with contextlib.suppress(OSError):
                self._launched.channel.sendall(json.dumps(message).encode() + b"\n")

    def _listen(self) -> None:
        assert self._launched is not None  # noqa: S101  # start() made it before this thread
        try:
            with self._launched.channel.makefile("rb") as lines:
                while line := lines.readline(LINE_BYTES_MAX):
                    self._take(json.loads(line))
        except (OSError, ValueError, KeyError):
            _kill(self.handle)  # a runner that speaks no sense is no runner
        with self._changed:
            self._is_closed = True

    def _take(self, message: dict[str, Any]) -> None:
        name = message.pop("kind")
        if name == "hello":
            self._has_said_hello = True
            self._learn_first_process()
        elif name == "listening":
            self._put(EventKind.WARNING, {"message": _port_warning(message["pids"])})
        else:
            kind = EventKind(name)
            if kind is EventKind.STARTED and not self._is_stopping:
                self._kill_at_ms = None  # from here the runner keeps the time limit
            self._has_exited = self._has_exited or kind is EventKind.EXITED
            self._put(kind, message)
            if kind is EventKind.EXITED:
                self._kill_at_ms = _now_ms() + STOP_MARGIN_MS

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
        words = _tail(Path(self.handle.lease_dir) / "logs/sandbox.log")
        failure = None if self._is_stopping else FailureClass.PLATFORM
        message = (
            "stopped on request"
            if self._is_stopping
            else f"the lease's processes ended without saying why; their last words: {words or 'none'}"
        )
        return SandboxEvent(EventKind.EXITED, _now_ms(), {"exit_code": None, "failure_class": failure, "message": message})


def leftovers(settings: SandboxSettings) -> list[SandboxHandle]:
    """Return the handles of every lease that was started here and not discarded."""
    handles = []
    for path in sorted((settings.state_dir / "handles").glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            handles.append(SandboxHandle.from_json(json.loads(path.read_text())))
    return handles


def end_leftover(handle: SandboxHandle) -> bool:
    """Kill what is left of an earlier agent's lease; True when it is proven gone. Call again until it is."""
    if is_gone(handle):
        return True
    _kill(handle)
    return is_gone(handle)


def is_gone(handle: SandboxHandle) -> bool:
    """True when no process of the lease lives.

    With namespaces the proof is the end of the namespace's first process: the kernel reports it after every other member
    was killed. Without, no process may have the lease's user id (when it has its own), carry its mark, or be the one that we started.
    """
    if handle.boot_id != procfs.boot_id():
        return True
    if procfs.is_alive(handle.pid, handle.pid_started_at_ticks):
        return False
    if handle.init_pid is not None and handle.init_started_at_ticks is not None:
        return not procfs.is_alive(handle.init_pid, handle.init_started_at_ticks)
    return not _members(handle)


def discard(handle: SandboxHandle) -> None:
    """Delete the directories of a lease that is gone. What the lease made unreadable for itself is made readable first."""
    for folder in (handle.lease_dir, handle.temp_dir):
        if folder is not None:
            shutil.rmtree(folder, onerror=_open_and_retry)
    (Path(handle.lease_dir).parents[1] / "handles" / f"{handle.lease_id}.json").unlink(missing_ok=True)


def _members(handle: SandboxHandle) -> list[int]:
    own = procfs.owned_by(handle.uid) if handle.uid != os.geteuid() else []
    marked = procfs.marked_with(LEASE_MARK, handle.lease_id)
    return [pid for pid in {*own, *marked} if pid != os.getpid()]


def _kill(handle: SandboxHandle) -> None:
    known = ((handle.init_pid, handle.init_started_at_ticks), (handle.pid, handle.pid_started_at_ticks))
    for pid, started in known:
        if pid is not None and started is not None and procfs.is_alive(pid, started):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    if handle.init_pid is None:
        for pid in _members(handle):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _write_handle(handle: SandboxHandle, settings: SandboxSettings) -> None:
    folder = settings.state_dir / "handles"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".{handle.lease_id}.draft"
    draft.write_text(json.dumps(handle.to_json()))
    draft.replace(folder / f"{handle.lease_id}.json")


def _port_warning(pids: list[int]) -> str:
    ports = [f"{port}" for address, port in procfs.listening_ports(pids) if address != "loopback"]
    return f"isolation none: this lease's Ray listens on every interface, behind its token only, on ports {', '.join(ports) or '(none)'}"


def _open_and_retry(function: Any, path: str, _error: Any) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.chmod(Path(path).parent, 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
