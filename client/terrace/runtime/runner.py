"""The first process of a lease: starts the private Ray head, runs the entrypoint in it once, tells the agent, ends everything.

Owns: the deadlines and the end of the lease. Does not own: the namespaces around it (the agent made them) or what becomes of the events.
Started by the agent (agents/sandbox/enter.py) with runner.json and a descriptor as arguments, by an interpreter that loads no package of
the user's. When the agent's end of the socket closes, the lease ends: it never outlives its agent. Standard library only; Ray is another
process. Users' code shares the lease's user and folders: no file is opened by name once it runs, and nothing in one is believed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from terrace.runtime import before_start, disk, head, members, verdict
from terrace.runtime.channel import Channel
from terrace.runtime.cluster import Cluster
from terrace.runtime.jobs_api import JobsApi
from terrace.runtime.output import Output
from terrace.runtime.reports import Reports

TICK_SECONDS = 0.05
STARTING_TICK_SECONDS = 0.02
MEMORY_CHECK_SECONDS = 1.0
GO_SECONDS_MAX = 30.0
EXIT_CODE_SECONDS_MAX = 15.0
FLUSH_SECONDS_MAX = 10.0
CHUNKS_PER_TICK_MAX = 32
# Ray's own services, which the lease's memory is not meant for.
RAY_MEMORY_BYTES = 1536 * 1024 * 1024
MIB = 1024 * 1024
PID_BYTES_MAX, PID_MAX = 32, 1 << 22


class Runner:
    """One lease, from its first to its last moment. All times are seconds of the monotonic clock."""

    def __init__(self, lease: dict[str, Any], channel: Channel) -> None:
        overlay = Path(lease["lease_dir"]) / "overlay/bin/python"
        self._lease = {**lease, "python": str(overlay) if overlay.exists() else lease["job_python"]}
        self._channel = channel
        self._run_dir = Path(lease["temp_dir"]) / "run"
        self._logs_dir = Path(lease["lease_dir"]) / "logs"
        self._output = Output(self._logs_dir / "output.log")
        self._ray_output = Output(self._logs_dir / "ray.log")
        self._began = time.monotonic()
        self._deadline = self._began + lease["start_timeout_ms"] / 1000
        self._next_memory_check = self._began
        self._kernel_kills = members.kernel_memory_kills()
        self._entrypoint: int | None = None  # descriptor of the process
        self._entrypoint_gone_at: float | None = None
        self._is_ready = self._is_stopped = self._is_over_time = self._is_over_memory = False
        self._is_started = False
        self._over_disk: str | None = None
        self._disk = disk.DiskWatch(head.folders(lease))
        self._error: str | None = None
        self._users_part = before_start.users_part(
            lease["env"], has_requirements=overlay.exists(), work_dir=Path.cwd(), job_python=Path(lease["job_python"])
        )
        self._selector = selectors.DefaultSelector()
        self._ports = head.Ports() if lease["isolation"] == "namespaces" else head.free_ports()

    def run(self) -> None:
        """Run the lease to its end. Returns when everything was told to the agent, or the agent is gone."""
        self._run_dir.mkdir(mode=0o700)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._pid_file = os.open(head.pid_file(self._run_dir), os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._untouched = os.fstat(self._pid_file).st_ctime_ns
        self._reports = Reports(head.progress_socket(self._run_dir))
        for source in (self._channel, self._wake_reader, self._reports):
            self._selector.register(source, selectors.EVENT_READ)
        self._start()
        while self._channel.is_open and not self._is_over():
            self._selector.select(TICK_SECONDS if self._is_started else STARTING_TICK_SECONDS)
            self._tick()
        self._tell_the_end()

    def _start(self) -> None:
        lease = self._lease
        base = dict(os.environ)
        with (self._logs_dir / "ray.log").open("ab") as log:
            self._head = subprocess.Popen(
                head.start_command(lease, self._ports),
                env=head.environment(lease, base, self._run_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        entrypoint = head.entrypoint_command(lease, self._run_dir, self._logs_dir / "output.log")
        self._cluster = Cluster(
            JobsApi(self._ports.dashboard, lease["token"]), submission_id=lease["lease_id"], entrypoint=entrypoint, wake=self._wake
        )
        self._cluster.start()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_writer.send(b"w")

    def _tick(self) -> None:
        """Look at everything once."""
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        for message in self._channel.receive():
            if message.get("do") == "stop":
                self._stop(message["grace_ms"] / 1000)
        self._channel.flush()
        if self._head.pid in (ended := members.reap()):
            self._error = self._error or f"Ray ended with {ended[self._head.pid]} while the lease was open: {self._ray_words()}"
        self._report_ready()
        self._look_for_entrypoint()
        self._reports.pass_on(self._channel)
        self._pass_on_output()
        self._check_memory()
        self._check_disk()
        self._check_deadline()

    def _report_ready(self) -> None:
        if self._is_ready or self._cluster.ray_version is None:
            return
        self._is_ready = True
        self._channel.send("ready", ray_version=self._cluster.ray_version, took_ms=round((time.monotonic() - self._began) * 1000))

    def _look_for_entrypoint(self) -> None:
        if self._is_started:
            return
        with contextlib.suppress(ValueError):
            text = os.pread(self._pid_file, PID_BYTES_MAX, 0)  # by the descriptor: the name is in users' hands
            if text.endswith(b"\n") and 0 < (pid := int(text)) <= PID_MAX:
                self._is_started = True
                self._disk.start()
                self._deadline = time.monotonic() + self._lease["limit_ms"] / 1000
                if self._lease["isolation"] != "namespaces":  # only now is every part of Ray up
                    self._channel.send("listening", pids=members.descendants())
                self._channel.send("started", pid=pid)
                self._watch(pid)

    def _watch(self, pid: int) -> None:
        try:
            self._entrypoint = os.pidfd_open(pid)
        except ProcessLookupError:
            self._entrypoint_is_gone()
        else:
            self._selector.register(self._entrypoint, selectors.EVENT_READ)

    def _entrypoint_is_gone(self) -> None:
        self._entrypoint_gone_at = time.monotonic()
        self._cluster.entrypoint_is_gone()

    def _pass_on_output(self) -> None:
        """Pass on a part: a job that writes faster than anybody reads must not keep us from watching its time."""
        for _ in range(CHUNKS_PER_TICK_MAX):
            chunk = None if self._channel.is_full else self._output.read()
            if chunk is None:
                return
            self._channel.send("log", offset=chunk[0], text=chunk[1])
        self._wake()

    def _check_memory(self) -> None:
        if not self._is_started or time.monotonic() < self._next_memory_check:
            return
        self._next_memory_check = time.monotonic() + MEMORY_CHECK_SECONDS
        for_ray = RAY_MEMORY_BYTES + self._lease["object_store_bytes"]
        limit = self._lease["memory_bytes"] + for_ray
        # Without namespaces /dev/shm is everybody's; what of it the lease has mapped is counted all the same.
        shm_bytes = members.held_bytes(Path("/dev/shm")) if self._lease["isolation"] == "namespaces" else 0  # noqa: S108  # the lease's own
        used = members.memory_bytes(limit=limit, shm_bytes=shm_bytes)
        if used > limit:
            self._is_over_memory = True
            share = f"{limit // MIB} MiB, of which {for_ray // MIB} MiB are for Ray"
            self._error = f"the lease used {used // MIB} MiB of memory; its limit is {share}"

    def _check_disk(self) -> None:
        used, limit = self._disk.used_bytes, self._lease["disk_bytes"]
        if self._is_started and used > limit and self._error is None:
            self._error = self._over_disk = (
                f"the lease's files take {used // MIB} MiB; its limit is lease_disk_bytes_maximum = {limit // MIB} MiB"
            )

    def _check_deadline(self) -> None:
        if self._entrypoint is not None and self._entrypoint_gone_at is None and self._selector_says_gone(self._entrypoint):
            self._selector.unregister(self._entrypoint)
            self._entrypoint_is_gone()
        if time.monotonic() < self._deadline or self._is_over():
            return
        if not self._is_started:
            state = "Ray is up, the entrypoint is not" if self._is_ready else "Ray is not up"
            self._error = f"start_timeout_ms: {state} after {self._lease['start_timeout_ms']} ms; {self._ray_words()}"
        elif not (self._is_stopped or self._is_over_time):
            self._is_over_time = True
            self._give_notice("time_limit", self._lease["grace_ms"] / 1000)
        else:
            self._error = self._error or "killed after the grace period"

    @staticmethod
    def _selector_says_gone(descriptor: int) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(0))

    def _stop(self, grace_seconds: float) -> None:
        if self._is_stopped or self._is_over_time:
            return
        self._is_stopped = True
        if self._is_started:
            self._give_notice("stop", grace_seconds)

    def _give_notice(self, cause: str, grace_seconds: float) -> None:
        notice = head.notice_file(self._run_dir)
        draft = notice.with_name(f".{notice.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # whatever users' code put in its place: the signal comes all the same
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
                json.dump({"cause": cause, "grace_ms": round(grace_seconds * 1000)}, file)
            draft.replace(notice)
        self._deadline = time.monotonic() + grace_seconds
        self._cluster.stop()

    def _is_over(self) -> bool:
        """True when nothing more can come of this lease."""
        has_no_code = self._entrypoint_gone_at is not None and time.monotonic() > self._entrypoint_gone_at + EXIT_CODE_SECONDS_MAX
        is_never_started = self._is_stopped and not self._is_started
        return (
            is_never_started or has_no_code or self._error is not None or self._cluster.job is not None or self._cluster.error is not None
        )

    def _tell_the_end(self) -> None:
        job = self._cluster.job or {}
        code = job.get("driver_exit_code")
        code = code if isinstance(code, int) else None
        error = self._error or self._cluster.error
        if error is None and job.get("status") == "FAILED" and code is None:
            error = f"Ray could not run the entrypoint: {str(job.get('message'))[-1000:]}"
        self._look_for_entrypoint()  # it may have come and gone between two looks
        end = verdict.judge(
            verdict.Ending(
                exit_code=code,
                is_stopped=self._is_stopped,
                is_over_time=self._is_over_time,
                is_over_memory=self._is_over_memory,
                kernel_memory_kills=members.kernel_memory_kills() - self._kernel_kills,
                output_tail=self._output.tail(),
                over_disk=self._over_disk,
                cluster_error=error,
                has_run=self._is_started or os.fstat(self._pid_file).st_ctime_ns != self._untouched,
                users_part=self._users_part,
            )
        )
        self._reports.pass_on(self._channel, is_final=True)
        deadline = time.monotonic() + FLUSH_SECONDS_MAX
        while self._channel.is_open and time.monotonic() < deadline and (chunk := self._output.read(is_final=True)):
            self._channel.send("log", offset=chunk[0], text=chunk[1])
            self._channel.drain(FLUSH_SECONDS_MAX)
        verdict_of_us = {"exit_code": end.exit_code, "failure_class": end.failure_class, "message": end.message}
        self._channel.send("exited", was_stopped=self._is_stopped, **verdict_of_us)
        self._channel.drain(FLUSH_SECONDS_MAX)

    def _ray_words(self) -> str:
        """Return the end of what Ray said."""
        return self._ray_output.tail()[-1000:].strip()


def main() -> None:
    """Say hello, wait until the agent has written down who we are, run the lease, take everything along."""
    lease = json.loads(Path(sys.argv[1]).read_text())
    connection = socket.socket(fileno=int(sys.argv[2]))
    connection.set_inheritable(False)
    members.protect_runner()
    channel = Channel(connection)
    channel.send("hello")
    if not _may_go(channel):
        return
    runner = Runner(lease, channel)
    if lease["isolation"] == "namespaces":
        runner.run()
        return  # the first process of a PID namespace ends, and the kernel ends all others
    signal.signal(signal.SIGTERM, lambda _number, _frame: _end_without_namespace())
    try:
        runner.run()
    finally:
        _end_without_namespace()


def _may_go(channel: Channel) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.select(GO_SECONDS_MAX)
    orders = [message.get("do") for message in channel.receive()]
    return "go" in orders and "stop" not in orders


def _end_without_namespace() -> None:
    is_clean = members.kill_all()
    os._exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
