"""How leases end: by themselves, on request, over time, by kill -9. Real Ray each time."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from agents.sandbox import procfs, supervise
from agents.sandbox.spec import EventKind, SandboxError
from tests.sandbox.conftest import Leases
from tests.support import leases
from tests.support.other_agent import other_agent
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

LONG_JOB = """
import subprocess, sys, time
subprocess.Popen(["setsid", "sleep", "1000"], env={})
print("RUNNING here", flush=True)
time.sleep(1000)
"""
JOB_WITH_CHECKPOINT = """
import signal, sys, threading
from terrace import runtime
job, told = runtime.context(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
print("RUNNING", job.is_stopping, flush=True)
told.wait()
(job.checkpoint_dir / "step").write_text("41")
print("SAVED", job.notice_file.read_text(), flush=True)
"""
INFEASIBLE = """
import ray
ray.init(log_to_driver=False)
print("ASKING now", flush=True)
ray.get(ray.remote(num_gpus=99)(lambda: 1).remote())
"""
FAILING = """
import sys
print("last words", flush=True)
sys.exit(3)
"""


def python(program: str) -> tuple[str, ...]:
    return ("python", "-c", program)


def test_stop_gives_notice_and_time_for_a_checkpoint(machine_leases: Leases, tmp_path: Path) -> None:
    followed = machine_leases.start(leases.lease(lease_id="stopped", entrypoint=python(JOB_WITH_CHECKPOINT)))
    followed.wait_for_line("RUNNING False")

    followed.sandbox.stop(grace_ms=20_000)

    assert json.loads(followed.wait_for_line("SAVED ")) == {"cause": "stop", "grace_ms": 20_000}
    assert followed.to_the_end()["failure_class"] is None
    assert (Path(followed.sandbox.handle.lease_dir) / "checkpoint/step").read_text() == "41"


def test_exit_code_of_user_code_is_reported_with_all_its_output(machine_leases: Leases) -> None:
    followed = machine_leases.start(leases.lease(lease_id="failing", entrypoint=python(FAILING)))

    end = followed.to_the_end()

    assert end == {"exit_code": 3, "failure_class": "user_code", "message": "the entrypoint exited with 3"}
    assert leases.line_after(followed.events, "last ") == "words\n"


def test_request_that_can_never_be_met_ends_at_the_time_limit(machine_leases: Leases) -> None:
    """Ray lets it wait for ever, and its own stop changes nothing then."""
    followed = machine_leases.start(leases.lease(lease_id="infeasible", entrypoint=python(INFEASIBLE), limit_ms=6_000, grace_ms=1_000))

    end = followed.to_the_end()

    assert leases.line_after(followed.events, "ASKING ")
    assert end["failure_class"] == "time_limit"


def test_ray_that_is_not_up_in_time_is_destroyed(machine_leases: Leases) -> None:
    followed = machine_leases.start(leases.lease(lease_id="late", start_timeout_ms=500))

    end = followed.to_the_end(seconds=20)

    assert end["failure_class"] == "platform"
    assert "start_timeout_ms: Ray is not up after 500 ms" in end["message"]


def test_kill_of_the_one_parent_removes_the_whole_tree(machine_leases: Leases) -> None:
    followed = machine_leases.start(leases.lease(lease_id="killed", entrypoint=python(LONG_JOB)))
    followed.wait_for_line("RUNNING ")
    handle = followed.sandbox.handle

    os.kill(handle.pid, signal.SIGKILL)

    assert followed.to_the_end(seconds=10)["failure_class"] == "platform"
    assert handle.uid == os.getuid() or procfs.owned_by(handle.uid) == []


def test_directory_of_a_living_lease_is_not_deleted(machine_leases: Leases) -> None:
    followed = machine_leases.start(leases.lease(lease_id="living"))

    with pytest.raises(SandboxError, match="its processes live"):
        followed.sandbox.discard()

    followed.sandbox.kill()
    followed.to_the_end(seconds=10)
    followed.sandbox.discard()
    assert not Path(followed.sandbox.handle.lease_dir).exists()


def test_lease_dies_with_its_agent(namespaces: None, job_environment: None) -> None:
    with other_agent(leases.lease(entrypoint=python(LONG_JOB))) as agent:
        agent.read_until(EventKind.STARTED)
        handle = next(iter(supervise.leftovers(leases.settings(Path(agent.handle.lease_dir).parents[1]))))
        assert not supervise.is_gone(handle)

        agent.process.kill()

        wait_until(lambda: supervise.is_gone(handle), seconds=10)
        assert handle.uid == os.getuid() or procfs.owned_by(handle.uid) == []


def test_ordinary_user_runs_a_lease_too(namespaces: None, job_environment: None, tmp_path: Path) -> None:
    script = (Path(__file__).parent / "probe_job.py").read_text()
    spec = leases.lease(entrypoint=("python", "probe_job.py"), archive_path=leases.archive(tmp_path / "a.tar.gz", {"probe_job.py": script}))
    with other_agent(spec, isolation="namespaces", is_ordinary_user=True) as agent:
        end = agent.read_until(EventKind.EXITED)
        seen = leases.facts(agent.events)

    assert end["exit_code"] == 0
    assert (seen["uid"], seen["interfaces"], seen["capabilities"]) == (agent.handle.uid, ["lo"], ["0000000000000000"])
    assert seen["write_job_environment"] == "OSError"
