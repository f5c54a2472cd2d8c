"""How a lease's disk is counted and bounded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from terrace.runtime import disk
from tests.sandbox import plain_environment
from tests.sandbox.conftest import Leases
from tests.support import leases

MIB = 1024 * 1024
WRITES = """
import os, signal
from terrace import runtime
folder = runtime.context().checkpoint_dir / "hidden"
folder.mkdir()
(folder / "file").write_bytes(os.urandom(40 << 20))
folder.chmod(0)
signal.pause()
"""


def test_files_count_once_and_what_links_lead_to_does_not(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(os.urandom(4 * MIB))
    (tmp_path / "a/b/file").write_bytes(os.urandom(MIB))
    os.link(tmp_path / "a/b/file", tmp_path / "a/again")
    os.symlink(tmp_path / "elsewhere", tmp_path / "a/link")
    with (tmp_path / "a/sparse").open("wb") as file:
        file.truncate(1 << 40)

    used = disk.used_bytes([str(tmp_path / "a")])

    assert MIB <= used < 1.5 * MIB


def test_folder_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert disk.used_bytes([str(tmp_path / "nowhere")]) == 0


def test_job_that_fills_the_disk_is_ended_with_the_name_of_the_limit(plain_runtime: Path, namespaces: None) -> None:
    with tempfile.TemporaryDirectory(prefix="terrace-") as folder:
        of = leases.settings(Path(folder).resolve() / "state", runtime_path=plain_runtime, disk_bytes=32 * MIB)
        with Leases(of, job_python=plain_environment.PYTHON) as started:
            end = started.start(leases.lease(entrypoint=("python", "-c", WRITES))).to_the_end(seconds=60)

    assert end["failure_class"] == "user_code"
    assert end["message"].startswith("the lease's files take 4")
    assert end["message"].endswith("its limit is lease_disk_bytes_maximum = 32 MiB")
