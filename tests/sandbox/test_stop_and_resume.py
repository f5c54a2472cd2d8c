"""A training that is stopped half-way on real Ray: it gets the notice and the signal, saves, and the job's next lease goes on from there.

The training is examples/digits_checkpoint, as users are shown it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from agents.sandbox.spec import EventKind
from tests.sandbox.conftest import Leases
from tests.support import leases
from tests.support.service import JOB_PYTHON, REPOSITORY

PROGRAM = (REPOSITORY / "examples/digits_checkpoint/train.py").read_text()


class Attempts:
    """Attempts of one job, one lease each, all with the job's checkpoint directory."""

    def __init__(self, started: Leases, archive: str, checkpoint_dir: Path) -> None:
        self._leases, self._archive, self._checkpoint_dir = started, archive, checkpoint_dir
        self._count = 0

    def start(self, *options: str) -> leases.Followed:
        """Start the next one."""
        self._count += 1
        spec = leases.lease(
            lease_id=f"attempt-{self._count}",
            attempt=self._count,
            entrypoint=("python", "train.py", *options),
            archive_path=self._archive,
            checkpoint_dir=str(self._checkpoint_dir),
        )
        return self._leases.start(spec)

    @staticmethod
    def stop(attempt: leases.Followed) -> str:
        """Stop one as a preemption does and see it gone; return what it said when it was told."""
        attempt.sandbox.stop(grace_ms=60_000)
        end = attempt.to_the_end()
        assert (end["failure_class"], end["message"], end["was_stopped"]) == (None, "stopped on request", True)
        attempt.sandbox.discard()
        return leases.line_after(attempt.events, "told to stop ") or ""


@pytest.fixture
def attempts(machine_leases: Leases, tmp_path: Path) -> Attempts:
    archive = leases.archive(tmp_path / "job.tar.gz", {"train.py": PROGRAM})
    return Attempts(machine_leases, archive, machine_leases.settings.state_dir / "checkpoints/job-1")


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_stopped_training_saves_on_notice_and_the_next_attempt_goes_on_from_the_saved_epoch(attempts: Attempts) -> None:
    first = attempts.start("--epochs=100000", "--save-every=100000")
    first.wait_for_line("epoch   3/")
    told = attempts.stop(first)
    second = attempts.start("--epochs=100000")
    resumed = second.wait_for_line("attempt 2: resumed from epoch ").strip()
    attempts.stop(second)

    notice, saved = re.fullmatch(r"\((.+)\): saved epoch (\d+), leaving\n", told).groups()  # type: ignore[union-attr]  # no match is a failure
    reports = [event.data for event in first.events if event.kind is EventKind.PROGRESS and "checkpoint" in event.data]
    assert (json.loads(notice), resumed) == ({"cause": "stop", "grace_ms": 60_000}, saved)
    assert [(report["step"], report["checkpoint"]) for report in reports] == [(int(saved), True)]


def test_interrupted_training_ends_with_the_numbers_of_one_that_was_not(job_environment: None, tmp_path: Path) -> None:
    def trained(folder: str, epochs: int) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        lease = {
            "LEASE_ID": "l", "JOB_ID": "j", "ATTEMPT": "1", "REPLICAS": "1", "GPUS_PER_REPLICA_MILLI_GPU": "1000", "DEVICES": "0",
            "CHECKPOINT_DIR": str(tmp_path / folder), "NOTICE_FILE": str(tmp_path / "notice"),
        }  # fmt: skip
        environment = {"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY / "client"), **{f"TERRACE_{name}": lease[name] for name in lease}}
        command = [str(JOB_PYTHON), "-c", PROGRAM, f"--epochs={epochs}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    trained("interrupted", 5)

    assert trained("interrupted", 10) == trained("whole", 10)
