"""Isolation none: what still holds where the machine gives no namespaces.

Run in a network that the test made, so that no port of Ray opens to others; it looks like a machine's, because Ray listens on every
interface only where there is more than loopback.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from agents.sandbox import supervise
from agents.sandbox.spec import EventKind, Isolation, SandboxError
from tests.sandbox import machine_processes
from tests.support import leases
from tests.support.other_agent import other_agent
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]

SLEEP = "1000.125"
LONG_JOB = f"""
import subprocess, time
subprocess.Popen(["sleep", "{SLEEP}"], start_new_session=True)
print("RUNNING", flush=True)
time.sleep(1000)
"""


def test_lease_runs_locked_by_its_token_and_warns_of_its_ports(namespaces: None, job_environment: None, tmp_path: Path) -> None:
    script = (Path(__file__).parent / "probe_job.py").read_text()
    archive = leases.archive(tmp_path / "a.tar.gz", {"probe_job.py": script})
    spec = leases.lease(entrypoint=("python", "probe_job.py", "{}"), archive_path=archive)
    with other_agent(spec, isolation="none", is_ordinary_user=True, has_own_network=True) as agent:
        warning = agent.read_until(EventKind.WARNING)["message"]
        end = agent.read_until(EventKind.EXITED)
        seen = leases.facts(agent.events)
        agent.read_until(EventKind.GONE)

    assert end["exit_code"] == 0
    assert re.search(r"behind its token only: on every interface, ports \d+(, \d+)+; on loopback, ports \d+", warning)
    assert seen["http"] == {"right": 200, "none": 401, "of another lease": 403}
    assert seen["cuda_visible_devices"] == "3,5"
    assert supervise.is_gone(agent.handle)


@pytest.mark.parametrize("victim", ["the agent", "the runner"])
def test_nothing_is_left_when_one_is_killed(victim: str, namespaces: None, job_environment: None) -> None:
    spec = leases.lease(entrypoint=("python", "-c", LONG_JOB))
    with other_agent(spec, isolation="none", is_ordinary_user=True, has_own_network=True) as agent:
        agent.read_until(EventKind.LOG)
        assert machine_processes.sleeping(SLEEP)

        if victim == "the agent":
            agent.process.kill()
        else:
            os.kill(agent.handle.pid, signal.SIGKILL)
            agent.read_until(EventKind.GONE)

        wait_until(lambda: supervise.is_gone(agent.handle), seconds=30)
        assert machine_processes.sleeping(SLEEP) == []


def test_root_refuses_when_its_lease_could_not_reach_its_own_folder(job_environment: None, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives leases a user of their own")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(SandboxError, match=rf"may not pass through .*{re.escape(str(closed))}[,:]"):
        leases.started(leases.lease(), leases.settings(closed / "state", isolation=Isolation.NONE))

    assert list((closed / "state/leases").iterdir()) == []
