"""kill -9 of the whole service during a job, then a new start: nothing is lost and nothing runs twice, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import make_member
from tests.support.service import Service, are_gone
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.timeout(300)]


def test_kill_of_the_whole_service_loses_no_job_and_runs_none_twice(service: Service, job_folder: Path) -> None:
    service.start()
    client = make_member(service)
    first = client.submit(["python", "train.py"], gpus=1, limit_seconds=120, working_directory=job_folder)
    queued = client.submit(["python", "train.py"], gpus=4, limit_seconds=120, working_directory=job_folder)
    wait_until(lambda: client.job(first.id).state == "running", seconds=60)
    alive = service.descendants()

    service.kill()
    wait_until(lambda: are_gone(alive), seconds=20)
    service.start()

    ended = [client.wait(job.id, timeout_seconds=150) for job in (first, queued)]
    assert [job.state for job in ended] == ["succeeded"] * 2
    assert [job.attempt for job in ended] == [2, 1]
    assert "start 1\nstart 2\nend 2" in client.logs_text(first.id)
    wait_until(lambda: client.usage().check.unrated_leases == 0, seconds=20)
    check = client.usage().check
    assert (check.is_equal, check.leases) == (True, 3)


def test_kill_of_the_scheduler_and_the_api_leaves_the_job_running(service: Service, job_folder: Path) -> None:
    service.start()
    client = make_member(service)
    job = client.submit(["python", "train.py"], gpus=1, limit_seconds=120, working_directory=job_folder)
    wait_until(lambda: client.job(job.id).state == "running", seconds=60)
    service.child("scheduler").kill()
    service.child("api").kill()
    ended = client.wait(job.id, timeout_seconds=120)
    assert (ended.state, ended.attempt) == ("succeeded", 1)
