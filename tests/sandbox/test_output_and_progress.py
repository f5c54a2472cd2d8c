"""What a job says on its way: output of any shape, progress of any nonsense, neither of which may cost more than the job itself."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from agents.sandbox.spec import EventKind
from terrace.runtime import output, progress
from terrace.runtime.output import Output
from tests.sandbox.conftest import Leases
from tests.support import leases

NONSENSE = r"""
import os, socket
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def send(raw):
    sender.sendto(raw, os.environ["TERRACE_PROGRESS_SOCKET"])
for raw in (b"no json", b"[" * 4000, b"{}", b'{"step": 1e999, "total": null, "metrics": {}}'):
    send(raw)
send(b'{"step": 1, "total": 2, "metrics": {"x": "\\ud800"}}')
send(b'{"step": 1, "total": 2, "metrics": {}, "checkpoint": "yes"}')
send(b'{"step": ' + b"9" * 4000 + b', "total": null, "metrics": {}}')
from terrace import runtime
runtime.report_progress(step=2, total=None, loss=float("nan"), note="\ud800\0fine")
"""


def written(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def everything(source: Output) -> bytes:
    """Return all there is to read now, as it would be passed on."""
    text = ""
    while chunk := source.read(is_final=True):
        text += chunk[1]
    return text.encode()


def test_character_that_is_cut_in_two_arrives_whole(tmp_path: Path) -> None:
    source = Output(tmp_path / "output.log")
    written(tmp_path / "output.log", "aü".encode()[:2])

    first = source.read()
    written(tmp_path / "output.log", "ü!".encode()[1:])

    assert (first, source.read()) == ((0, "a"), (2, "ü!"))


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    source = Output(tmp_path / "output.log")
    written(tmp_path / "output.log", b"a\xff\xfeb")

    assert source.read() == (0, "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b")


def test_output_is_read_from_the_file_that_was_opened_first(tmp_path: Path) -> None:
    source = Output(tmp_path / "output.log")
    written(tmp_path / "output.log", b"mine")

    os.unlink(tmp_path / "output.log")
    os.symlink("/etc/hostname", tmp_path / "output.log")

    assert (source.tail(), source.read()) == ("mine", (0, "mine"))


def test_link_in_place_of_the_output_is_not_followed(tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "output.log")

    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        Output(tmp_path / "output.log")


def test_what_was_read_takes_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "RELEASE_EVERY_BYTES", 128 * 1024)
    source = Output(tmp_path / "output.log")
    for _ in range(32):
        written(tmp_path / "output.log", b"x" * 128 * 1024)
        everything(source)

    status = (tmp_path / "output.log").stat()

    assert status.st_size == 32 * 128 * 1024
    assert status.st_blocks * 512 <= 3 * 128 * 1024


def test_output_beyond_the_limit_is_neither_passed_on_nor_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PASSED_BYTES_MAX", 100_000)
    monkeypatch.setattr(output, "RELEASE_EVERY_BYTES", 128 * 1024)
    source = Output(tmp_path / "output.log")
    written(tmp_path / "output.log", b"x" * 10_000_000)

    passed = everything(source)
    written(tmp_path / "output.log", b"the last words")

    assert 100_000 <= len(passed) < 100_000 + output.CHUNK_BYTES_MAX
    assert (source.read(), source.tail()[-14:]) == (None, "the last words")
    assert (tmp_path / "output.log").stat().st_blocks * 512 < 500_000


def test_progress_that_makes_no_sense_is_passed_over(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(entrypoint=("python", "-c", NONSENSE)))

    end = followed.to_the_end(seconds=30)

    reports = [event.data for event in followed.events if event.kind is EventKind.PROGRESS]
    assert (end["exit_code"], reports) == (0, [{"step": 2, "total": None, "metrics": {"loss": "nan", "note": "?fine"}}])


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"step": 1, **{f"m{number}": 1 for number in range(33)}}, "metrics: at most 32"),
        ({"step": 1, "note": "x" * 5_000}, "at most 4096 bytes"),
        ({"step": 2**53 + 1}, "step, total: at most"),
    ],
    ids=["too many metrics", "too long", "too far"],
)
def test_report_that_is_too_large_is_refused_where_it_is_made(report: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        progress.report_progress(**report)  # type: ignore[arg-type]


def test_report_outside_a_lease_or_to_nobody_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERRACE_PROGRESS_SOCKET", raising=False)
    outside = [progress.report_progress(step=1), progress.report_checkpoint(step=1)]
    monkeypatch.setenv("TERRACE_PROGRESS_SOCKET", str(tmp_path / "nobody"))

    assert [*outside, progress.report_progress(step=1), progress.report_checkpoint(step=1)] == [False] * 4


def test_report_never_waits_for_a_busy_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_PROGRESS_SOCKET", str(tmp_path / "busy"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as runner:
        runner.bind(str(tmp_path / "busy"))
        taken = [progress.report_progress(step=number) for number in range(10_000)]
        first = json.loads(runner.recv(4_096))

    assert (taken[0], taken[-1], first) == (True, False, {"step": 0, "total": None, "metrics": {}})
