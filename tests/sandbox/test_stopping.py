"""How a running lease is brought to its end: notice, SIGTERM, grace, SIGKILL. Everything but Ray is real."""

from __future__ import annotations

import json

from agents.sandbox.spec import EventKind
from tests.sandbox import machine_processes
from tests.sandbox.conftest import Leases
from tests.support import leases

SLEEP = "1000.015625"
OBEYS = """
import signal, threading
from terrace import runtime
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
print("RUNNING", runtime.context().is_stopping, flush=True)
told.wait()
print("TOLD", runtime.context().notice_file.read_text(), flush=True)
"""
IGNORES = f"""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "{SLEEP}"], start_new_session=True, env={{}})
print("RUNNING here", flush=True)
signal.pause()
"""
FIFOS = """
import os, pathlib, signal
from terrace import runtime
notice = runtime.context().notice_file
os.mkfifo(notice)
output = pathlib.Path(os.environ["HOME"]).parent / "logs/output.log"
os.unlink(output)
os.mkfifo(output)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
runtime.report_progress(step=1)
while True:
    signal.pause()
"""

KILLS_RAY = """
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
signal.pause()
"""


def python(program: str) -> tuple[str, ...]:
    return ("python", "-c", program)


def test_stop_gives_notice_and_lets_the_job_end_by_itself(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=python(OBEYS)))
    followed.wait_for_line("RUNNING False", seconds=30)

    followed.sandbox.stop(grace_ms=60_000)

    assert json.loads(followed.wait_for_line("TOLD ", seconds=30)) == {"cause": "stop", "grace_ms": 60_000}
    assert followed.to_the_end(seconds=30) == {"exit_code": 0, "failure_class": None, "message": "stopped on request", "was_stopped": True}


def test_job_that_ignores_the_notice_is_killed_after_the_grace_with_all_its_children(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=python(IGNORES)))
    followed.wait_for_line("RUNNING ", seconds=30)

    followed.sandbox.stop(grace_ms=200)

    assert followed.to_the_end(seconds=30) == {
        "exit_code": None,
        "failure_class": None,
        "message": "stopped on request",
        "was_stopped": True,
    }
    assert machine_processes.sleeping(SLEEP) == []


def test_second_stop_does_not_shorten_the_grace(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=python(OBEYS)))
    followed.wait_for_line("RUNNING ", seconds=30)

    followed.sandbox.stop(grace_ms=60_000)
    followed.sandbox.stop(grace_ms=0)

    assert json.loads(followed.wait_for_line("TOLD ", seconds=30))["grace_ms"] == 60_000


def test_time_limit_gives_notice_too_and_is_the_verdict(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=python(OBEYS), limit_ms=1_000, grace_ms=60_000))

    end = followed.to_the_end(seconds=30)

    assert json.loads(followed.wait_for_line("TOLD ")) == {"cause": "time_limit", "grace_ms": 60_000}
    assert (end["exit_code"], end["failure_class"], end["was_stopped"]) == (0, "time_limit", False)


def test_job_over_its_limit_that_ignores_the_notice_is_killed(plain_leases: Leases) -> None:
    end = plain_leases.start(leases.lease(entrypoint=python(IGNORES), limit_ms=700, grace_ms=200)).to_the_end(seconds=30)

    assert (end["exit_code"], end["failure_class"]) == (None, "time_limit")
    assert machine_processes.sleeping(SLEEP) == []


def test_job_that_puts_pipes_in_the_runner_s_way_is_ended_all_the_same(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=python(FIFOS)))
    followed.wait_for(EventKind.PROGRESS, seconds=30)

    followed.sandbox.stop(grace_ms=60_000)

    assert followed.to_the_end(seconds=30)["exit_code"] == 7


def test_job_that_ends_its_ray_ends_as_its_own_failure(plain_leases: Leases) -> None:
    end = plain_leases.start(leases.lease(entrypoint=python(KILLS_RAY))).to_the_end(seconds=30)

    assert (end["failure_class"], end["was_stopped"]) == ("user_code", False)
    assert end["message"].startswith("Ray ended with -9 while the lease was open")


def test_kill_needs_no_answer_of_the_lease(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=python(IGNORES)))
    followed.wait_for_line("RUNNING ", seconds=30)

    followed.sandbox.kill()

    assert followed.to_the_end(seconds=30)["failure_class"] == "platform"
    assert machine_processes.sleeping(SLEEP) == []
