"""Leases that never get to run: what the user sent is bad, or the cluster does not come up. Everything but Ray is real."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.sandbox.spec import EventKind, SandboxError
from tests.sandbox import plain_environment
from tests.sandbox.conftest import Leases
from tests.support import leases

MakeLeases = Callable[[str], Leases]
SINS = [
    ("never up", "start_timeout_ms: Ray is not up after 700 ms"),
    ("dies", "Ray ended with 1 while the lease was open: Ray's last words"),
]
WHEEL = "greeting-1.0-py3-none-any.whl"


@pytest.fixture
def sinning_leases(namespaces: None) -> Iterator[MakeLeases]:
    """Makes leases whose Ray does what it is told to do wrong."""
    with contextlib.ExitStack() as stack:

        def make(sin: str) -> Leases:
            runtime = stack.enter_context(plain_environment.made(sin=sin))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="terrace-"))
            of = leases.settings(Path(folder).resolve() / "state", runtime_path=runtime)
            return stack.enter_context(Leases(of, job_python=plain_environment.PYTHON))

        yield make


def wheel() -> bytes:
    """Return a wheel of one module, made by hand."""
    buffer, information = io.BytesIO(), "greeting-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("greeting.py", 'WORDS = "hello from the wheel"\n')
        file.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        file.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{information}/RECORD", "")
    return buffer.getvalue()


def link_archive(path: Path) -> str:
    """Write an archive with a symbolic link out of the working directory."""
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("way_out")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(member)
    return str(path)


def requirements(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_archive_that_is_none_is_the_user_s_environment(plain_leases: Leases, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"not an archive")

    end = plain_leases.start(leases.lease(archive_path=str(tmp_path / "a.tar.gz"))).to_the_end(seconds=30)

    assert (end["exit_code"], end["failure_class"]) == (None, "environment")
    assert end["message"].startswith("archive: not a complete tar.gz file")


def test_archive_with_a_link_is_refused_by_name(plain_leases: Leases, tmp_path: Path) -> None:
    end = plain_leases.start(leases.lease(archive_path=link_archive(tmp_path / "a.tar.gz"))).to_the_end(seconds=30)

    assert end["failure_class"] == "environment"
    assert "'way_out': only files and folders are accepted" in end["message"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("--no-binary :all:\n", "line 1: '--no-binary :all:'", id="an option"),
        pytest.param("./missing-1.0-py3-none-any.whl\n", "pip failed", id="a wheel that is not there"),
    ],
)
def test_requirements_that_cannot_be_met_are_the_user_s_environment(text: str, message: str, plain_leases: Leases, tmp_path: Path) -> None:
    end = plain_leases.start(leases.lease(requirements_path=requirements(tmp_path / "r.txt", text))).to_the_end(seconds=60)

    assert end["failure_class"] == "environment"
    assert message in end["message"]


def test_archive_takes_no_room_once_it_is_unpacked(plain_leases: Leases, tmp_path: Path) -> None:
    archive = leases.archive(tmp_path / "a.tar.gz", {"train.py": "print('HERE', flush=True); import signal; signal.pause()"})

    followed = plain_leases.start(leases.lease(archive_path=archive, entrypoint=("python", "train.py")))
    followed.wait_for_line("HERE", seconds=30)

    assert [*Path(followed.sandbox.handle.lease_dir).glob("*.tar.gz")] == []


def test_requirements_are_there_before_the_entrypoint_and_only_for_it(plain_leases: Leases, tmp_path: Path) -> None:
    program = "import greeting, sys; print('WORDS', greeting.WORDS, sys.prefix)"
    spec = leases.lease(
        entrypoint=("python", "-c", program),
        archive_path=leases.archive(tmp_path / "a.tar.gz", {WHEEL: wheel()}),
        requirements_path=requirements(tmp_path / "r.txt", f"{WHEEL}\n"),
    )

    followed = plain_leases.start(spec)

    lease_dir = followed.sandbox.handle.lease_dir
    assert followed.wait_for_line("WORDS ", seconds=60) == f"hello from the wheel {lease_dir}/overlay\n"


@pytest.mark.parametrize(("sin", "message"), SINS)
def test_cluster_that_does_not_come_up_is_destroyed_and_is_the_platform_s(sin: str, message: str, sinning_leases: MakeLeases) -> None:
    end = sinning_leases(sin).start(leases.lease(env={"MINE": "1"}, start_timeout_ms=700)).to_the_end(seconds=30)

    assert (end["failure_class"], message in end["message"]) == ("platform", True)


@pytest.mark.parametrize(("sin", "message"), SINS)
def test_cluster_that_does_not_come_up_with_the_user_s_variables_is_the_user_s_environment(
    sin: str, message: str, plain_leases: Leases
) -> None:
    end = plain_leases.start(leases.lease(env={"RAY_SIN": sin}, start_timeout_ms=700)).to_the_end(seconds=30)

    assert (end["failure_class"], message in end["message"]) == ("environment", True)
    assert "its own variable RAY_SIN, which runs before the entrypoint" in end["message"]


def test_cluster_that_does_not_come_up_beside_a_module_of_the_user_s_is_the_user_s_environment(
    sinning_leases: MakeLeases, tmp_path: Path
) -> None:
    archive = leases.archive(tmp_path / "a.tar.gz", {"train.py": "", "logging.py": ""})

    end = sinning_leases("dies").start(leases.lease(archive_path=archive)).to_the_end(seconds=30)

    assert (end["failure_class"], "its own module logging.py" in end["message"]) == ("environment", True)


def test_cluster_that_does_not_come_up_where_somebody_touched_the_evidence_is_the_user_s_code(plain_leases: Leases) -> None:
    end = plain_leases.start(leases.lease(env={"RAY_SIN": "touches"}, start_timeout_ms=700)).to_the_end(seconds=30)

    assert end["failure_class"] == "user_code"


def test_requirements_that_hide_the_cluster_s_end_are_the_user_s_environment(sinning_leases: MakeLeases, tmp_path: Path) -> None:
    spec = leases.lease(
        archive_path=leases.archive(tmp_path / "a.tar.gz", {WHEEL: wheel()}),
        requirements_path=requirements(tmp_path / "r.txt", f"{WHEEL}\n"),
    )

    end = sinning_leases("dies").start(spec).to_the_end(seconds=60)

    assert (end["failure_class"], "its own requirements" in end["message"]) == ("environment", True)


def test_program_that_is_not_there_is_the_user_s_code(plain_leases: Leases) -> None:
    end = plain_leases.start(leases.lease(entrypoint=("no-such-program",))).to_the_end(seconds=30)

    assert (end["exit_code"], end["failure_class"]) == (127, "user_code")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lease_id": "../out"}, "lease_id: letters, digits"),
        ({"entrypoint": ()}, "entrypoint: needs at least one argument"),
        ({"device_indices": (1,)}, "device_uuids, device_indices: must name the same devices"),
        ({"job_python": "/no/python"}, "job_python: /no/python cannot be run"),
    ],
)
def test_impossible_lease_is_refused_and_leaves_nothing(change: dict[str, object], message: str, plain_leases: Leases) -> None:
    with pytest.raises(SandboxError, match=message):
        leases.started(leases.lease(**{"job_python": "/no/python", **change}), plain_leases.settings)

    assert [*plain_leases.settings.state_dir.glob("leases/*")] == []


def test_start_that_cannot_be_written_down_is_taken_back(plain_leases: Leases) -> None:
    (plain_leases.settings.state_dir / "handles").write_text("a file where a folder belongs")

    with pytest.raises(SandboxError, match="handle cannot be written down"):
        plain_leases.start(leases.lease())

    assert [*plain_leases.settings.state_dir.glob("leases/*")] == []


def test_stop_before_the_cluster_is_up_ends_at_once(plain_leases: Leases) -> None:
    followed = plain_leases.start(leases.lease(env={"RAY_SIN": "never up"}))

    followed.sandbox.stop(grace_ms=60_000)

    assert followed.to_the_end(seconds=30)["message"] == "stopped on request"
    assert followed.find(EventKind.STARTED) is None
