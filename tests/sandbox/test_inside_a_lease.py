"""One real lease that looks around itself while another runs beside it; each test is about one thing that it saw, or did not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.sandbox.spec import EventKind, LeaseAlreadyStartedError, SandboxSettings
from tests.sandbox import machine_processes
from tests.sandbox.conftest import Leases
from tests.support import leases

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

LOOPBACK = {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF0000" + "0100007F"}
STATE = ("", "leases", "terrace.db", "checkpoints")
STRANGER, ORPHAN, NEIGHBOUR = "1000.25", "1000.5", "1000.75"  # seconds to sleep, by which a process is known again
NEIGHBOUR_S_TOKEN = "a-token-of-the-neighbour-" + "y" * 20
NEIGHBOUR_S_JOB = f"""
import subprocess, time
subprocess.Popen(["sleep", "{NEIGHBOUR}"], env={{}}, start_new_session=True)
print("RUNNING here", flush=True)
time.sleep(1000)
"""


@dataclass(frozen=True)
class Seen:
    """A finished lease: what it printed, its events, how it ended. The neighbour runs on."""

    facts: dict[str, Any]
    followed: leases.Followed
    end: dict[str, Any]
    state_dir: Path
    neighbour: leases.Followed
    ports_on_the_machine: list[tuple[str, int]]
    networks: set[str]


@pytest.fixture(scope="module")
def folders(state_dir: Path) -> Path:
    """The agent's state directory with what else lies in it, inside the service's."""
    service = state_dir.parent
    (service / "operator.key").write_text("the operator's key")
    state_dir.mkdir(mode=0o700)
    (state_dir / "terrace.db").write_text("everybody's rows")
    (state_dir / "leases").mkdir(mode=0o711)
    (state_dir / "leases/lease-0").mkdir()
    (state_dir / "checkpoints").mkdir()
    (state_dir / "checkpoints/another-job").mkdir()
    return state_dir


@pytest.fixture(scope="module")
def started(folders: Path, namespaces: None, job_environment: None) -> Iterator[Leases]:
    """Leases of an agent in `folders`."""
    of = leases.settings(folders, hidden_paths=(folders.parent,))
    with Leases(of) as running:
        yield running


@pytest.fixture(scope="module")
def seen(started: Leases, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    os.environ["TERRACED_SECRET"] = "the agent's own"
    script = Path(__file__).with_name("probe_job.py").read_text()
    service = folders.parent
    order = {
        "paths": [str(service / name) for name in ("", "operator.key", *(f"{folders.name}/{name}" for name in STATE))],
        "plants": [f"{folder}/terrace-planted-{os.getpid()}" for folder in ("/tmp", "/var/tmp", "/dev/shm", "/etc", "/")],
        "other_token": NEIGHBOUR_S_TOKEN,
        "orphan_sleeps": ORPHAN,
    }
    spec = leases.lease(
        entrypoint=("python", "probe_job.py", json.dumps(order)),
        archive_path=leases.archive(tmp_path_factory.mktemp("sent") / "a.tar.gz", {"probe_job.py": script, "data/x.txt": "x"}),
        checkpoint_dir=str(folders / "checkpoints/job-1"),
        env={"MINE": "1", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "TERRACE_JOB_ID": "another"},
    )
    beside = leases.lease(
        lease_id="lease-2", token=NEIGHBOUR_S_TOKEN, device_indices=(0, 1), entrypoint=("python", "-c", NEIGHBOUR_S_JOB), limit_ms=600_000
    )
    with subprocess.Popen(["sleep", STRANGER]) as stranger:
        neighbour = started.start(beside)
        neighbour.wait_for_line("RUNNING ")
        followed = started.start(spec)
        followed.wait_for(EventKind.STARTED)
        tree = machine_processes.below(followed.sandbox.handle.pid)
        ports, networks = machine_processes.open_ports(tree), machine_processes.networks(tree)
        end = followed.to_the_end()
        stranger.kill()
    return Seen(leases.facts(followed.events), followed, end, folders, neighbour, ports, networks)


def test_entrypoint_ends_well(seen: Seen) -> None:
    assert (seen.end["exit_code"], seen.end["failure_class"]) == (0, None)


def test_events_come_in_order(seen: Seen) -> None:
    kinds = [event.kind for event in seen.followed.events]

    assert kinds[:2] + kinds[-2:] == [EventKind.READY, EventKind.STARTED, EventKind.EXITED, EventKind.GONE]


def test_progress_reaches_the_agent(seen: Seen) -> None:
    assert seen.followed.wait_for(EventKind.PROGRESS) == {"step": 3, "total": 7, "metrics": {"loss": 0.25}}


def test_code_is_not_root(seen: Seen) -> None:
    assert seen.facts["uid"] == seen.followed.sandbox.handle.uid != 0


def test_code_has_no_capability_and_cannot_gain_one(seen: Seen) -> None:
    assert seen.facts["capabilities"] == ["0000000000000000"]
    assert seen.facts["no_new_privileges"] == "1"
    assert seen.facts["new_namespace"] != 0


def test_ray_listens_only_on_the_loopback_of_its_own_network(seen: Seen) -> None:
    assert seen.facts["interfaces"] == ["lo"]
    assert seen.facts["listening"]
    # "Any address" inside is that loopback too: there is no other interface. The machine's own sockets are not there.
    assert set(seen.facts["listening"]) <= LOOPBACK | {"0" * 8, "0" * 32}


def test_no_port_of_the_lease_is_open_on_the_machine(seen: Seen) -> None:
    assert seen.ports_on_the_machine == []
    assert len(seen.networks) == 1
    assert machine_processes.own_network() not in seen.networks


def test_only_the_lease_s_processes_are_seen(seen: Seen) -> None:
    assert "terrace.runtime" in seen.facts["first_process"]
    assert f"sleep {ORPHAN}" in seen.facts["commands"]
    assert not {f"sleep {STRANGER}", f"sleep {NEIGHBOUR}"} & set(seen.facts["commands"])


def test_leases_side_by_side_on_the_same_ports_do_not_meet(seen: Seen) -> None:
    assert seen.facts["nodes"] == 1
    assert seen.facts["submissions"] == ["lease-1"]
    assert seen.facts["http"]["of another lease"] == 403


def test_runner_cannot_be_looked_into_and_survives_being_killed(seen: Seen) -> None:
    assert seen.facts["first_process_files"] == "PermissionError"
    assert seen.facts["kill_of_the_runner"] == ["done", "done"]
    assert seen.followed.find(EventKind.PROGRESS)  # reported by the runner after it was "killed"


def test_processes_and_core_dumps_are_limited(seen: Seen) -> None:
    assert seen.facts["limits"] == [SandboxSettings(state_dir=seen.state_dir).tasks_maximum, 0]


def test_state_directory_holds_nothing_but_the_own_lease(seen: Seen) -> None:
    state, service = str(seen.state_dir), str(seen.state_dir.parent)

    assert seen.facts["listings"][service] == [seen.state_dir.name]
    assert seen.facts["listings"][state] == ["checkpoints", "leases"]
    assert seen.facts["listings"][f"{state}/leases"] == ["lease-1"]
    assert seen.facts["listings"][f"{state}/checkpoints"] == ["job-1"]
    assert seen.facts["paths"][f"{state}/terrace.db"] == "FileNotFoundError"
    assert seen.facts["paths"][f"{service}/operator.key"] == "FileNotFoundError"


def test_sockets_of_the_machine_s_services_are_hidden(seen: Seen) -> None:
    assert seen.facts["listings"].get("/run", []) == []


def test_agent_s_environment_does_not_reach_the_job(seen: Seen) -> None:
    assert "TERRACED_SECRET" not in seen.facts["environment"]
    assert "MINE" in seen.facts["environment"]


def test_nothing_that_the_job_writes_stays_on_the_machine(seen: Seen) -> None:
    written = {path for path, outcome in seen.facts["plants"].items() if outcome == "done"}

    assert {Path(path).parent.as_posix() for path in written} == {"/tmp", "/var/tmp", "/dev/shm"}
    assert [path for path in seen.facts["plants"] if Path(path).exists()] == []
    assert seen.facts["write_job_environment"] in {"OSError", "PermissionError"}


def test_checkpoint_directory_outlives_the_lease(seen: Seen) -> None:
    assert seen.facts["write_checkpoint"] == "done"
    assert (seen.state_dir / "checkpoints/job-1/planted").read_text() == "x"


def test_entrypoint_sees_exactly_the_leased_devices(seen: Seen) -> None:
    assert seen.facts["cuda_visible_devices"] == "3,5"
    assert seen.facts["gpus"] == 2


def test_each_replica_gets_its_own_device(seen: Seen) -> None:
    assert seen.facts["task_devices"] == ["3", "5"]


def test_job_knows_who_it_is_and_cannot_be_told_otherwise(seen: Seen) -> None:
    assert seen.facts["context"] == {"job_id": "job-1", "attempt": 1, "replicas": 2, "gpus": 1}


def test_working_directory_is_the_archive_for_entrypoint_and_workers(seen: Seen) -> None:
    folder = f"{seen.followed.sandbox.handle.lease_dir}/work"

    assert seen.facts["where"] == [folder, ["data", "probe_job.py"]]
    assert seen.facts["worker_where"] == seen.facts["where"]


def test_ray_answers_to_the_lease_s_token_only(seen: Seen) -> None:
    assert seen.facts["http"] == {"right": 200, "none": 401, "of another lease": 403}


def test_ray_answers_a_duplicate_submission_with_500(seen: Seen) -> None:
    """Why `submit_once` looks before it submits: when this fails, Ray has learned better and jobs_api.py can be shorter."""
    assert seen.facts["duplicate_submission"] == 500


def test_submitting_once_more_is_success_and_runs_nothing(seen: Seen) -> None:
    assert seen.facts["submissions"] == ["lease-1"]


def test_process_that_left_its_session_dies_with_the_lease(seen: Seen) -> None:
    assert machine_processes.sleeping(ORPHAN) == []


def test_started_lease_cannot_be_started_again(seen: Seen, started: Leases) -> None:
    with pytest.raises(LeaseAlreadyStartedError, match="lease-1"):
        started.start(leases.lease())


def test_kill_of_the_one_parent_removes_the_whole_tree(seen: Seen) -> None:
    assert machine_processes.sleeping(NEIGHBOUR)

    os.kill(seen.neighbour.sandbox.handle.pid, signal.SIGKILL)

    assert seen.neighbour.to_the_end(seconds=10)["failure_class"] == "platform"
    assert machine_processes.sleeping(NEIGHBOUR) == []
