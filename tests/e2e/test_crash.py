"""kill -9 of the whole service during a job, then a new start: nothing is lost and nothing runs twice, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import terrace
from tests.support.service import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.timeout(300)]

PROGRAM = """
import os, pathlib, threading
notes = pathlib.Path(os.environ["TERRACE_CHECKPOINT_DIR"]) / "notes"
def note(word):
    with notes.open("a") as file:
        file.write(f"{word} {os.environ['TERRACE_ATTEMPT']}\\n")
note("start")
print("running attempt", os.environ["TERRACE_ATTEMPT"], flush=True)
threading.Event().wait(5)
note("end")
print(notes.read_text(), flush=True)
"""


@pytest.fixture
def service(tmp_path: Path, service_database_url: str | None) -> Iterator[Service]:
    running = Service(tmp_path / "state", service_database_url)
    yield running
    running.stop()


def make_member(service: Service) -> terrace.Client:
    operator = terrace.Client(url=service.url, key=service.operator_key)
    operator.create_tenant("acme")
    operator.set_quota("acme", "h200", nominal=4_000)
    user = operator.create_user("ada", role="member", tenant="acme")
    return terrace.Client(url=service.url, key=operator.create_key(user_id=user.id).secret)


def test_kill_of_the_whole_service_loses_no_job_and_runs_none_twice(service: Service, tmp_path: Path) -> None:
    service.start()
    client = make_member(service)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "train.py").write_text(PROGRAM)
    first = client.submit(["python", "train.py"], gpus=1, limit_seconds=120, working_directory=tmp_path / "job")
    queued = client.submit(["python", "train.py"], gpus=4, limit_seconds=120, working_directory=tmp_path / "job")
    wait_until(lambda: client.job(first.id).state == "running", seconds=60)
    alive = service.descendants()

    service.kill()
    wait_until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in alive), seconds=20)
    service.start()

    ended = [client.wait(job.id, timeout_seconds=150) for job in (first, queued)]
    assert [job.state for job in ended] == ["succeeded"] * 2
    assert [job.attempt for job in ended] == [2, 1]
    assert "start 1\nstart 2\nend 2" in client.logs_text(first.id)
    wait_until(lambda: client.usage().check.unrated_leases == 0, seconds=20)
    check = client.usage().check
    assert (check.is_equal, check.leases) == (True, 3)


def test_kill_of_the_scheduler_leaves_the_job_running(service: Service, tmp_path: Path) -> None:
    service.start()
    client = make_member(service)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "train.py").write_text(PROGRAM)
    job = client.submit(["python", "train.py"], gpus=1, limit_seconds=120, working_directory=tmp_path / "job")
    wait_until(lambda: client.job(job.id).state == "running", seconds=60)
    service.child("scheduler").kill()
    service.child("api").kill()
    ended = client.wait(job.id, timeout_seconds=120)
    assert (ended.state, ended.attempt) == ("succeeded", 1)
