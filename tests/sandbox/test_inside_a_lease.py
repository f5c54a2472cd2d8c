"""One real lease that looks around itself; each test is about one thing that it saw, or did not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents.sandbox import procfs
from agents.sandbox.spec import EventKind, LeaseAlreadyStartedError
from tests.sandbox.conftest import Leases
from tests.support import leases

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

LOOPBACK = {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF0000" + "0100007F"}


@dataclass(frozen=True)
class Seen:
    """A finished lease: what it printed, its events, how it ended."""

    facts: dict[str, Any]
    followed: leases.Followed
    end: dict[str, Any]
    state_dir: Path


@pytest.fixture(scope="module")
def seen(machine_leases: Leases, state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    os.environ["TERRACED_SECRET"] = "the agent's own"
    (state_dir / "terrace.db").write_text("everybody's rows")
    (state_dir / "leases").mkdir(mode=0o711)
    (state_dir / "leases/lease-0").mkdir()
    (state_dir / "checkpoints").mkdir()
    (state_dir / "checkpoints/another-job").mkdir()
    script = Path(__file__).with_name("probe_job.py").read_text()
    paths = [str(state_dir), str(state_dir / "leases"), str(state_dir / "terrace.db"), str(state_dir / "checkpoints")]
    followed = machine_leases.start(
        leases.lease(
            entrypoint=("python", "probe_job.py", *paths),
            archive_path=leases.archive(tmp_path_factory.mktemp("sent") / "a.tar.gz", {"probe_job.py": script, "data/x.txt": "x"}),
            checkpoint_dir=str(state_dir / "checkpoints/job-1"),
            env={"MINE": "1", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "TERRACE_JOB_ID": "another"},
        )
    )
    end = followed.to_the_end()
    return Seen(leases.facts(followed.events), followed, end, state_dir)


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


def test_only_the_lease_s_processes_are_seen(seen: Seen) -> None:
    assert seen.facts["first_process"] == ["-m", "terrace.runtime.runner"]
    assert seen.facts["processes"] < 100


def test_runner_cannot_be_looked_into(seen: Seen) -> None:
    assert seen.facts["first_process_files"] == "PermissionError"


def test_state_directory_holds_nothing_but_the_own_lease(seen: Seen) -> None:
    state = str(seen.state_dir)

    assert seen.facts["listings"][state] == ["checkpoints", "leases"]
    assert seen.facts["listings"][f"{state}/leases"] == ["lease-1"]
    assert seen.facts["listings"][f"{state}/checkpoints"] == ["job-1"]
    assert seen.facts["paths"][f"{state}/terrace.db"] == "FileNotFoundError"


def test_agent_s_environment_does_not_reach_the_job(seen: Seen) -> None:
    assert "TERRACED_SECRET" not in seen.facts["environment"]
    assert "MINE" in seen.facts["environment"]


def test_job_environment_cannot_be_written(seen: Seen) -> None:
    assert seen.facts["write_job_environment"] in {"OSError", "PermissionError"}


def test_checkpoint_directory_outlives_the_lease(seen: Seen) -> None:
    seen.followed.sandbox.is_gone()

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


def test_process_that_left_its_session_dies_with_the_lease(seen: Seen) -> None:
    handle = seen.followed.sandbox.handle

    assert seen.facts["orphan"] > 1
    assert handle.uid == os.getuid() or procfs.owned_by(handle.uid) == []


def test_started_lease_cannot_be_started_again(seen: Seen, machine_leases: Leases) -> None:
    with pytest.raises(LeaseAlreadyStartedError, match="lease-1"):
        machine_leases.start(leases.lease())
