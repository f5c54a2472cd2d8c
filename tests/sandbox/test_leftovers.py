"""What an earlier agent left behind is found, killed and proven gone: with its handle, without one, after another boot of the machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.sandbox import handles, procfs, supervise
from agents.sandbox.spec import Isolation, SandboxHandle, SandboxSettings
from tests.sandbox import machine_processes
from tests.sandbox.conftest import Leases
from tests.support import leases
from tests.support.waiting import wait_until

PATH = {"PATH": os.defpath}


@pytest.fixture
def of(tmp_path: Path) -> SandboxSettings:
    return leases.settings(tmp_path / "state")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that carries the mark of lease-1."""
    with subprocess.Popen(["sleep", "1000"], env={supervise.LEASE_MARK: "lease-1"}, start_new_session=True) as running:
        yield running
        running.kill()


def handle(of: SandboxSettings, pid: int, **changes: object) -> SandboxHandle:
    """Return the handle of a process as a lease's parent."""
    lease_dir = of.state_dir / "leases/lease-1"
    lease_dir.mkdir(parents=True, exist_ok=True)
    values = {
        "lease_id": "lease-1",
        "pid": pid,
        "pid_started_at_ticks": procfs.started_at_ticks(pid) or 0,
        "isolation": Isolation.NONE,
        "lease_dir": str(lease_dir),
        "boot_id": procfs.boot_id(),
        "uid": os.geteuid(),
    }
    return SandboxHandle.from_json({**values, **changes})


def end(left: SandboxHandle, process: subprocess.Popen[bytes]) -> int:
    """Prove a leftover gone; return what its process ended with."""
    wait_until(lambda: process.poll() is not None or supervise.end_leftover(left), seconds=10)
    assert supervise.end_leftover(left)
    return process.wait(5)


def test_leftover_is_killed_and_proven_gone(of: SandboxSettings, process: subprocess.Popen[bytes]) -> None:
    handles.write(handle(of, process.pid), of)

    [left] = handles.leftovers(of)

    assert not supervise.is_gone(left)
    assert end(left, process) == -signal.SIGKILL


def test_start_that_was_cut_off_before_its_handle_is_found_by_its_folder(of: SandboxSettings, process: subprocess.Popen[bytes]) -> None:
    (of.state_dir / "leases/lease-1").mkdir(parents=True)

    [left] = handles.leftovers(of)

    assert (left.lease_id, left.pid) == ("lease-1", 0)
    assert not supervise.is_gone(left)
    assert end(left, process) == -signal.SIGKILL


def test_process_that_lost_its_mark_is_found_in_the_lease_s_folder(of: SandboxSettings) -> None:
    """Some of Ray's processes write their title over their environment."""
    left = handle(of, 2**22 + 1)
    with subprocess.Popen(["sleep", "1000"], env={}, cwd=left.lease_dir, start_new_session=True) as process:
        assert not supervise.is_gone(left)
        assert end(left, process) == -signal.SIGKILL


def test_person_who_looks_at_the_folder_from_a_terminal_is_spared(of: SandboxSettings) -> None:
    left = handle(of, 2**22 + 1)
    ours, theirs = os.openpty()
    with subprocess.Popen(["setsid", "--ctty", "--wait", "sleep", "1000.0078125"], stdin=theirs, env=PATH, cwd=left.lease_dir) as person:
        wait_until(lambda: machine_processes.sleeping("1000.0078125"), seconds=10)
        [looking] = machine_processes.sleeping("1000.0078125")
        is_spared = looking not in procfs.holding([left.lease_dir], since_ticks=0)
        os.kill(looking, signal.SIGKILL)
        person.wait(10)
    os.close(ours)
    os.close(theirs)

    assert is_spared


def test_process_of_before_the_lease_is_none_of_its(of: SandboxSettings) -> None:
    left = handle(of, 2**22 + 1)
    with subprocess.Popen(["sleep", "1000"], env={}, cwd=left.lease_dir, start_new_session=True) as process:
        started = procfs.started_at_ticks(process.pid) or 0

        found = [process.pid in procfs.holding([left.lease_dir], since_ticks=since) for since in (started, started + 1)]
        process.kill()

    assert found == [True, False]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"lease_id": "lease-1"}', '{"isolation": "of its own"}'])
def test_handle_that_cannot_be_read_hides_no_lease(content: str, of: SandboxSettings) -> None:
    (of.state_dir / "leases/lease-1").mkdir(parents=True)
    (of.state_dir / "handles").mkdir()
    (of.state_dir / "handles/lease-1.json").write_text(content)

    assert [left.lease_id for left in handles.leftovers(of)] == ["lease-1"]


def test_process_that_only_inherited_the_number_is_spared(of: SandboxSettings, process: subprocess.Popen[bytes]) -> None:
    stranger = handle(of, process.pid, lease_id="lease-9", pid_started_at_ticks=1)

    assert supervise.end_leftover(stranger)
    assert process.poll() is None


def test_lease_of_another_boot_of_the_machine_is_gone(of: SandboxSettings, process: subprocess.Popen[bytes]) -> None:
    assert supervise.is_gone(handle(of, process.pid, boot_id="another boot"))


def test_discarded_leftover_is_left_no_more_and_its_checkpoint_stays(of: SandboxSettings, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "step").write_text("41")
    left = handle(of, 2**22 + 1, checkpoint_dir=str(checkpoint))
    handles.write(left, of)

    supervise.discard(left)

    assert handles.leftovers(of) == []
    assert not Path(left.lease_dir).exists()
    assert (checkpoint / "step").read_text() == "41"


def test_socket_and_log_of_an_ended_lease_are_closed(plain_leases: Leases) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for number in range(3):
        followed = plain_leases.start(leases.lease(lease_id=f"lease-{number}"))
        followed.to_the_end(seconds=30)
        followed.sandbox.discard()

    assert len(set(os.listdir("/proc/self/fd"))) == len(before)
