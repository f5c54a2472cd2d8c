"""A service of the test's own, a member of a startup, and a program that says which attempts started and ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import terrace
from tests.support.service import Service

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
    """The whole service, not started yet, on each kind of database."""
    running = Service(tmp_path / "state", service_database_url)
    yield running
    running.stop()


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """A working directory whose train.py takes five seconds and keeps notes across attempts."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "train.py").write_text(PROGRAM)
    return folder


def make_member(service: Service) -> terrace.Client:
    """Make a startup with a quota of four GPUs; return its member's client."""
    operator = terrace.Client(url=service.url, key=service.operator_key)
    operator.create_tenant("acme")
    operator.set_quota("acme", "h200", nominal=4_000)
    user = operator.create_user("ada", role="member", tenant="acme")
    return terrace.Client(url=service.url, key=operator.create_key(user_id=user.id).secret)
