"""Ctrl-C during a job: the service ends with all its processes, and the next start on the same state directory goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import make_member
from tests.support.service import Service, are_gone
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.mark.parametrize("service_database_url", [None], ids=["sqlite"])
def test_stopped_service_leaves_no_process_and_resumes_its_jobs(service: Service, job_folder: Path) -> None:
    service.start()
    client = make_member(service)
    job = client.submit(["python", "train.py"], gpus=1, limit_seconds=120, working_directory=job_folder)
    wait_until(lambda: client.job(job.id).state == "running", seconds=60)
    alive = service.descendants()

    assert service.stop() == 0
    assert are_gone(alive)
    service.start()

    ended = client.wait(job.id, timeout_seconds=120)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert [attempt.outcome for attempt in ended.attempts] == ["node_lost", "completed"]
    assert "start 1\nstart 2\nend 2" in client.logs_text(job.id)
