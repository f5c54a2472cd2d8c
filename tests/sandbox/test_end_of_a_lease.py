"""How leases end: by themselves, on request, over time, by kill -9. Real Ray each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.sandbox import handles, supervise
from agents.sandbox.spec import SandboxError
from tests.sandbox import machine_processes
from tests.sandbox.conftest import Leases
from tests.support import leases
from tests.support.other_agent import other_agent
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

ORPHAN = "1000.375"
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

    assert end == {"exit_code": 3, "failure_class": "user_code", "message": "the entrypoint exited with 3", "was_stopped": False}
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


def test_directory_of_a_living_lease_is_not_deleted(machine_leases: Leases) -> None:
    followed = machine_leases.start(leases.lease(lease_id="living"))

    with pytest.raises(SandboxError, match="its processes live"):
        followed.sandbox.discard()

    followed.sandbox.kill()
    followed.to_the_end(seconds=10)
    followed.sandbox.discard()
    assert not Path(followed.sandbox.handle.lease_dir).exists()


def test_ordinary_user_s_lease_is_closed_too_and_dies_with_its_agent(namespaces: None, job_environment: None, tmp_path: Path) -> None:
    script = (Path(__file__).parent / "probe_job.py").read_text()
    archive = leases.archive(tmp_path / "a.tar.gz", {"probe_job.py": script})
    order = json.dumps({"is_staying": True, "orphan_sleeps": ORPHAN})
    spec = leases.lease(entrypoint=("python", "probe_job.py", order), archive_path=archive)
    with other_agent(spec, isolation="namespaces", is_ordinary_user=True) as agent:
        seen = json.loads(agent.read_line("FACTS "))
        [handle] = handles.leftovers(leases.settings(Path(agent.handle.lease_dir).parents[1]))
        assert machine_processes.sleeping(ORPHAN)

        agent.process.kill()

        wait_until(lambda: supervise.is_gone(handle), seconds=10)
        assert machine_processes.sleeping(ORPHAN) == []

    assert (seen["uid"], seen["interfaces"], seen["capabilities"]) == (handle.uid, ["lo"], ["0000000000000000"])
    assert (seen["write_job_environment"], seen["new_namespace"] != 0) == ("OSError", True)
