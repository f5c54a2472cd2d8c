"""`make demo`: the main job on real input, without a question asked.

Starts the service, makes two startups with quotas, submits three training jobs (one of them a gang of two replicas), shows the job that
waits and why, streams real logs, prints accuracies, the quota table and the usage report, proves that the report equals the leases, and
leaves no process behind. Everything is done through the `terrace` command, echoed, as a person would type it.
Nothing is canned: a figure that is printed was read from the service. Exit status 0 only when every check held.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console

EXAMPLES = Path(__file__).parent
BIN = Path(sys.executable).parent
START_SECONDS_MAXIMUM = 90
JOBS_SECONDS_MAXIMUM = 200
STOP_SECONDS_MAXIMUM = 75  # `terraced up` takes 65 when everything takes as long as it may
WAIT_SECONDS_MAXIMUM = 30


class DemoFailedError(Exception):
    """A step did not do what the demo promises."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Demo:
    """The service under demonstration and what the steps share."""

    console: Console
    state_dir: Path
    job_python: Path
    port: int = field(default_factory=free_port)
    service: subprocess.Popen[bytes] | None = None
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def step(self, title: str) -> None:
        """Print a heading."""
        self.console.rule(f"[bold]{title}", align="left")

    def terrace(self, who: str, *arguments: str, cwd: Path | None = None, is_quiet: bool = False, is_shown: bool = True) -> str:
        """Run `terrace` as `who` and return its standard output; its output is shown unless quiet."""
        if is_shown:
            self.console.print(f"[dim]{who}[/] [cyan]$ terrace {' '.join(arguments)}[/]", highlight=False, soft_wrap=True)
        environment = {**os.environ, "TERRACE_URL": f"http://127.0.0.1:{self.port}", "TERRACE_API_KEY": self.keys[who]}
        answer = subprocess.run(
            [str(BIN / "terrace"), *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise DemoFailedError(
                f"terrace {' '.join(arguments)} ended with {answer.returncode}: {answer.stderr.strip() or answer.stdout.strip()}"
            )
        if is_shown and not is_quiet:
            self.console.print(answer.stdout.rstrip("\n"), highlight=False, markup=False, soft_wrap=True)
        return answer.stdout

    def read(self, who: str, *arguments: str) -> object:
        """Run `terrace --format json` silently and return what it says."""
        return json.loads(self.terrace(who, "--format", "json", *arguments, is_shown=False))

    def job(self, who: str, job_id: str) -> dict[str, object]:
        """Return a job as its tenant sees it."""
        answer = self.read(who, "job", job_id)
        if not isinstance(answer, dict):
            raise DemoFailedError(f"job {job_id}: unexpected answer {answer!r}")
        return answer

    def remember_processes(self) -> None:
        """Note every process below the service, so that their end can be proven."""
        if self.service is None:
            return
        try:
            for process in psutil.Process(self.service.pid).children(recursive=True):
                self.seen[process.pid] = process
        except psutil.NoSuchProcess:
            return


def start_service(demo: Demo) -> None:
    """Start `terraced up` and wait until its node is ready."""
    demo.step("1  Start the service (api, scheduler with billing, node agent; SQLite; simulated GPUs)")
    demo.service = subprocess.Popen(
        [
            str(BIN / "terraced"),
            "up",
            f"--state-dir={demo.state_dir}",
            f"--port={demo.port}",
            f"--job-python={demo.job_python}",
            "--agent-metrics-port=0",
            "--scheduler-metrics-port=0",
        ],
        stdout=subprocess.PIPE,
        stderr=(demo.state_dir.parent / "service.log").open("wb"),
        start_new_session=True,
    )
    if demo.service.stdout is None:
        raise DemoFailedError("the service has no output")
    ready = threading.Event()
    threading.Thread(target=_watch_service, args=(demo, demo.service.stdout, ready), daemon=True).start()
    if not ready.wait(START_SECONDS_MAXIMUM) or demo.service.poll() is not None:
        raise DemoFailedError(f"the service did not start; its log:\n{(demo.state_dir.parent / 'service.log').read_text()[-4000:]}")
    demo.keys["operator"] = (demo.state_dir / "operator.key").read_text().strip()
    demo.terrace("operator", "ops", "node", "list")


def _watch_service(demo: Demo, stream: object, ready: threading.Event) -> None:
    for line in stream:  # type: ignore[attr-defined]
        text = line.decode(errors="replace").rstrip()
        if "Terrace is up" in text:
            demo.console.print(f"  [green]{text}[/]", highlight=False)
            ready.set()
        elif "ended with" in text:
            demo.console.print(f"  [yellow]{text}[/]", highlight=False)
    ready.set()


def make_tenants(demo: Demo) -> None:
    """Make two startups, each with a quota, a person and a key."""
    demo.step("2  Two startups, each with its own quota, person and key")
    for tenant, person, devices in (("aurora", "anh", "3"), ("borealis", "binh", "2")):
        demo.terrace("operator", "ops", "tenant", "create", tenant, is_quiet=True)
        demo.terrace("operator", "ops", "quota", "set", tenant, "h200", devices, is_quiet=True)
        demo.terrace("operator", "ops", "user", "create", person, "--tenant", tenant, "--role", "member", is_quiet=True)
        answer = demo.terrace("operator", "--format", "json", "ops", "key", "create", person, "--tenant", tenant, is_quiet=True)
        demo.keys[person] = json.loads(answer)["secret"]
    demo.terrace("operator", "quota")


def submit_jobs(demo: Demo) -> dict[str, tuple[str, str]]:
    """Submit the three jobs; return name -> (person, job id)."""
    demo.step("3  Three training jobs; the first is a gang of two replicas that train data-parallel through Ray")
    jobs = {
        "gang": ("anh", ("--gpus", "1", "--replicas", "2", "--limit", "5m"), "digits_gang", ("--epochs", "60")),
        "wide": ("anh", ("--gpus", "2", "--limit", "5m"), "digits", ("--epochs", "25", "--hidden", "128")),
        "small": ("binh", ("--gpus", "1", "--limit", "5m"), "digits", ("--epochs", "25")),
    }
    submitted = {}
    for name, (person, options, folder, arguments) in jobs.items():
        command = ("-q", "submit", "--name", name, *options, "--", "python", "train.py", *arguments)
        submitted[name] = (person, demo.terrace(person, *command, cwd=EXAMPLES / folder).strip())
    return submitted


def show_waiting(demo: Demo, submitted: dict[str, tuple[str, str]]) -> None:
    """Show why the second job of the first startup waits: its tenant is at quota."""
    demo.step("4  aurora holds 2 of its 3 GPUs, so its second job waits, and is told why and until when")
    person, job_id = submitted["wide"]
    deadline = time.monotonic() + WAIT_SECONDS_MAXIMUM
    reason: object = None
    while time.monotonic() < deadline:
        job = demo.job(person, job_id)
        reason = job.get("reason")
        if job["state"] == "queued" and isinstance(reason, dict) and reason["code"] == "quota_exceeded" and job.get("forecast"):
            demo.terrace(person, "why", job_id)
            demo.terrace(person, "jobs")
            return
        time.sleep(0.2)
    raise DemoFailedError(f"job {job_id} should wait with quota_exceeded and a forecast, its reason is {reason}")


def follow_jobs(demo: Demo, submitted: dict[str, tuple[str, str]]) -> None:
    """Stream the gang's log, then wait for all jobs, and print the accuracies that they reported."""
    demo.step("5  The gang's log, live")
    person, job_id = submitted["gang"]
    demo.remember_processes()
    _stream_logs(demo, person, job_id)
    demo.step("6  The rest runs to its end")
    deadline = time.monotonic() + JOBS_SECONDS_MAXIMUM
    said: dict[str, str] = {}
    while time.monotonic() < deadline:
        demo.remember_processes()
        states = {}
        for name, (owner, identifier) in submitted.items():
            job = demo.job(owner, identifier)
            states[name] = str(job["state"])
            progress = job.get("progress")
            line = f"{name}: {job['state']}" + (f" {progress.get('step')}/{progress.get('total')}" if isinstance(progress, dict) else "")
            if said.get(name) != line:
                demo.console.print(f"  {line}", highlight=False)
                said[name] = line
        if all(state in {"succeeded", "failed", "cancelled"} for state in states.values()):
            break
        time.sleep(1.0)
    for name, (owner, identifier) in submitted.items():
        job = demo.job(owner, identifier)
        progress = job.get("progress")
        if job["state"] != "succeeded" or not isinstance(progress, dict):
            raise DemoFailedError(
                f"{name} ended as {job['state']}: {job.get('message')}\n{demo.terrace(owner, 'logs', identifier, is_shown=False)[-2000:]}"
            )
        demo.console.print(f"  [green]{name:6} accuracy {progress['accuracy']}[/]  (attempt {job['attempt']})", highlight=False)


def _stream_logs(demo: Demo, person: str, job_id: str) -> None:
    demo.console.print(f"[dim]{person}[/] [cyan]$ terrace logs -f {job_id}[/]", highlight=False, soft_wrap=True)
    environment = {**os.environ, "TERRACE_URL": f"http://127.0.0.1:{demo.port}", "TERRACE_API_KEY": demo.keys[person]}
    follower = subprocess.Popen([str(BIN / "terrace"), "logs", "-f", job_id], env=environment, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(JOBS_SECONDS_MAXIMUM, follower.kill)
    timer.start()
    lines = 0
    for line in follower.stdout or ():
        lines += 1
        demo.console.print(f"  {line.rstrip()}", highlight=False, markup=False, soft_wrap=True)
    timer.cancel()
    if follower.wait() != 0 or lines == 0:
        raise DemoFailedError(f"terrace logs -f {job_id} ended with {follower.returncode} after {lines} lines")


def report_usage(demo: Demo) -> None:
    """Print the quota table and the usage report, and prove that the report equals the leases."""
    demo.step("7  What it cost, and the proof that nothing is missing")
    demo.terrace("operator", "quota")
    deadline = time.monotonic() + WAIT_SECONDS_MAXIMUM
    check: dict[str, object] = {}
    while time.monotonic() < deadline:
        report = demo.read("operator", "usage", "--by", "tenant,project,flavor,job")
        if not isinstance(report, dict):
            raise DemoFailedError("the usage report is not an object")
        check = report["check"]
        if check["leases"] == 3 and check["unrated_leases"] == 0:
            break
        time.sleep(0.3)
    demo.terrace("operator", "usage", "--by", "tenant,project,flavor,job")
    demo.terrace("anh", "usage")
    if check.get("leases") != 3 or not check.get("is_equal"):
        raise DemoFailedError(f"the report and the leases differ: {check}")
    demo.console.print(
        f"  [green]{check['leases']} leases: {check['lease_milli_gpu_ms']} milli-GPU ms, {check['lease_amount_units']} units from leases; "
        f"{check['line_milli_gpu_ms']} and {check['line_amount_units']} from lines: equal.[/]",
        highlight=False,
    )


def stop_service(demo: Demo) -> None:
    """Stop the service as Ctrl-C does and prove that no process of it is left."""
    if demo.service is None:
        return
    demo.step("8  Stop")
    demo.remember_processes()
    if demo.service.poll() is None:
        demo.service.send_signal(signal.SIGINT)
    try:
        demo.service.wait(STOP_SECONDS_MAXIMUM)
    except subprocess.TimeoutExpired:
        demo.service.kill()
        raise DemoFailedError(f"the service did not stop within {STOP_SECONDS_MAXIMUM} s") from None
    left = [process for process in demo.seen.values() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    if left:
        raise DemoFailedError(f"processes left behind: {[(process.pid, process.name()) for process in left]}")
    demo.console.print(f"  [green]{len(demo.seen)} processes seen below the service, none left.[/]", highlight=False)


@contextmanager
def leaving_nothing_running(demo: Demo) -> Iterator[None]:
    """Stop the service at the end of the block, whatever ended it."""
    try:
        yield
    finally:
        service = demo.service
        if service is not None and service.poll() is None:
            service.send_signal(signal.SIGINT)
            try:
                service.wait(STOP_SECONDS_MAXIMUM)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description="Two startups train on leased slices of simulated GPUs.")
    parser.add_argument("--job-python", type=Path, required=True, help="interpreter of the job environment")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="terrace-demo-") as folder:
        demo = Demo(console, Path(folder) / "state", options.job_python.absolute())
        try:
            with leaving_nothing_running(demo):
                start_service(demo)
                make_tenants(demo)
                submitted = submit_jobs(demo)
                show_waiting(demo, submitted)
                follow_jobs(demo, submitted)
                report_usage(demo)
                stop_service(demo)
        except (DemoFailedError, KeyboardInterrupt) as error:
            console.print(f"[bold red]The demo failed:[/] {error}", markup=True)
            return 1
    console.print(f"[bold green]Done in {time.monotonic() - began:.0f} s.[/]  `make up` leaves the service running and says what to try.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
