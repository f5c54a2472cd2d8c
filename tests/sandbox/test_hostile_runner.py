"""A runner that lies, floods or falls silent costs its own lease only: the agent always learns that it is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.sandbox import supervise
from agents.sandbox.spec import EventKind
from tests.sandbox import machine_processes, plain_environment
from tests.sandbox.conftest import Leases
from tests.support import leases

EXIT = 'say("exited", exit_code=0, failure_class=None, message="")'
LONGEST = supervise.LINE_BYTES_MAX


@pytest.fixture
def hostile_leases(state_dir: Path, namespaces: None, tmp_path: Path) -> Iterator[Leases]:
    """Leases whose runner does what their entrypoint says, as Python."""
    tmp_path.chmod(0o755)
    runtime = plain_environment.make(tmp_path)
    shutil.copyfile(Path(__file__).with_name("hostile_runner.py"), runtime / "terrace/runtime/runner.py")
    with Leases(leases.settings(state_dir, runtime_path=runtime), job_python=plain_environment.PYTHON) as started:
        yield started


@pytest.mark.parametrize(
    "program",
    [
        pytest.param('raw(b"no json\\n")', id="no JSON"),
        pytest.param('raw(b"[1, 2]\\n")', id="no object"),
        pytest.param('raw(b"[" * 100_000 + b"\\n")', id="nested beyond all measure"),
        pytest.param(f'raw(b"x" * {LONGEST + 1})', id="a line without an end"),
        pytest.param('say("gone")', id="a kind that only the agent may say"),
        pytest.param('say("log", offset="0", text="x")', id="an offset that is no number"),
        pytest.param('say("log", offset=0)', id="a log without text"),
        pytest.param('say("progress", step=10**400, total=None, metrics={})', id="a number that nobody can hold"),
        pytest.param('say("exited", exit_code=1, failure_class="of my own", message="")', id="a failure class of its own"),
    ],
)
def test_runner_that_makes_no_sense_is_killed(program: str, hostile_leases: Leases) -> None:
    program = f'say("started", pid=2)\n{program}\nimport time\ntime.sleep(1000.0625)'
    followed = hostile_leases.start(leases.lease(entrypoint=(program,)))

    end = followed.to_the_end(seconds=30)

    assert (end["exit_code"], end["failure_class"]) == (None, "user_code")
    assert [event.kind for event in followed.events] == [EventKind.STARTED, EventKind.EXITED, EventKind.GONE]


def test_text_that_cannot_be_encoded_arrives_repaired(hostile_leases: Leases) -> None:
    program = r'say("log", offset=0, text="a\ud800b"); say("exited", exit_code=3, failure_class="user_code", message="c\ud800\0d")'
    followed = hostile_leases.start(leases.lease(entrypoint=(program,)))

    end = followed.to_the_end(seconds=30)

    assert followed.wait_for(EventKind.LOG)["text"] == "a?b"
    assert (end["exit_code"], end["failure_class"], end["message"]) == (3, "user_code", "c?\N{REPLACEMENT CHARACTER}d")


def test_lease_starts_and_ends_once_whatever_is_said(hostile_leases: Leases) -> None:
    program = f'say("started", pid=2); say("started", pid=3); {EXIT}; say("started", pid=4); {EXIT}'
    followed = hostile_leases.start(leases.lease(entrypoint=(program,)))

    followed.to_the_end(seconds=30)

    assert [event.kind for event in followed.events] == [EventKind.STARTED, EventKind.EXITED, EventKind.GONE]


def test_runner_that_does_not_keep_the_limit_is_killed_by_the_agent(hostile_leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_MARGIN_MS", 100)
    program = 'say("started", pid=2)\nimport time\ntime.sleep(1000.0625)'

    followed = hostile_leases.start(leases.lease(entrypoint=(program,), limit_ms=200, grace_ms=100))

    assert followed.to_the_end(seconds=30)["failure_class"] == "time_limit"


def test_runner_that_lives_on_after_its_end_is_killed(hostile_leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_MARGIN_MS", 100)
    program = f'import subprocess\n{EXIT}\nsubprocess.run(["sleep", "1000.03125"])'
    followed = hostile_leases.start(leases.lease(entrypoint=(program,)))

    assert followed.to_the_end(seconds=30)["exit_code"] == 0

    assert machine_processes.sleeping("1000.03125") == []


def test_silent_end_before_the_entrypoint_is_the_platform_s_unless_the_user_s_variables_were_in_use(hostile_leases: Leases) -> None:
    specs = [
        leases.lease(lease_id=f"silent-{number}", entrypoint=("pass",), env=env) for number, env in enumerate(({}, {"PYTHONPATH": "."}))
    ]

    ends = [hostile_leases.start(spec).to_the_end(seconds=30) for spec in specs]

    assert [end["failure_class"] for end in ends] == ["platform", "environment"]


def test_last_words_are_not_read_through_a_link_that_the_job_made(hostile_leases: Leases, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("for the agent's eyes only")
    program = (
        f'import os, sys\nlog = lease["lease_dir"] + "/logs/sandbox.log"\nos.unlink(log)\nos.symlink({str(secret)!r}, log)\nprint("mine")'
    )

    end = hostile_leases.start(leases.lease(entrypoint=(program,))).to_the_end(seconds=30)

    assert end["message"] == "the lease's processes ended without saying why; their last words: mine"


def test_flood_of_events_waits_in_the_lease_until_somebody_reads(hostile_leases: Leases) -> None:
    program = f'for number in range(5_000): say("log", offset=number, text="x" * 1_000)\n{EXIT}'
    followed = hostile_leases.start(leases.lease(entrypoint=(program,)))
    followed.wait_for(EventKind.LOG, seconds=30)

    followed.to_the_end(seconds=60)

    offsets = [event.data["offset"] for event in followed.events if event.kind is EventKind.LOG]
    assert offsets == list(range(5_000))
