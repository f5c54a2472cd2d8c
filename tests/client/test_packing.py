"""What of a working directory is sent: the same bytes for the same files, what git would ignore left out, nothing from outside."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

import terrace
from api.settings import ArchiveLimits
from terrace.sdk import packing
from terrace.sdk.errors import PackingError
from tests.client.service import Service


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def sent(root: Path) -> dict[str, bytes]:
    with packing.packed(root) as archive, tarfile.open(fileobj=archive.file, mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # files only


def test_files_are_sent_with_their_content(root: Path) -> None:
    tree(root, {"train.py": "print()", "data/a b.txt": "x", "data/é.txt": "", ".env": "KEY=1"})
    assert sent(root) == {"train.py": b"print()", "data/a b.txt": b"x", "data/é.txt": b"", ".env": b"KEY=1"}


def test_the_same_files_make_the_same_bytes_whenever_and_wherever(root: Path, tmp_path: Path) -> None:
    tree(root, {"a/x.py": "1", "b.sh": "2", "a.py": "3"})
    (root / "b.sh").chmod(0o700)
    other = tmp_path / "elsewhere"
    shutil.copytree(root, other)
    os.utime(other / "a.py", (1, 1))
    (other / "b.sh").chmod(0o755)
    (other / "a.py").chmod(0o600)
    with packing.packed(root) as first, packing.packed(other) as second:
        assert (first.sha256, first.size_bytes, first.files) == (second.sha256, second.size_bytes, 3)
        assert (whole := first.file.read()) == second.file.read()
        assert whole[4:8] == bytes(4)  # where gzip keeps the time


def test_being_executable_makes_other_bytes(root: Path) -> None:
    tree(root, {"run.sh": "true"})
    with packing.packed(root) as plain:
        before = plain.sha256
    (root / "run.sh").chmod(0o755)
    with packing.packed(root) as executable:
        assert executable.sha256 != before


def test_odd_names_are_accepted_by_the_service(root: Path, service: Service) -> None:
    tree(root, {"a/" * 30 + "long name " * 20 + ".py": "1", "é \n\x1b.txt": "2", "-rf": "3", "C:x": "4"})
    assert len(terrace.Client(service.url, service.member()).upload(root)) == 64


@pytest.mark.parametrize("name", [b"bad\\name", b"bad\xff"], ids=["backslash", "not UTF-8"])
def test_a_name_that_other_systems_read_otherwise_is_refused(root: Path, name: bytes) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_text("1")
    with pytest.raises(PackingError, match="bad"):
        sent(root)
    (root / ".terraceignore").write_text("bad*\n")
    assert sorted(sent(root)) == [".terraceignore"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the system's administrator may read everything")
def test_a_folder_that_cannot_be_read_is_refused_by_name(root: Path) -> None:
    tree(root, {"closed/a.py": "1"})
    (root / "closed").chmod(0)
    with pytest.raises(PackingError, match="closed"):
        sent(root)
    (root / "closed").chmod(0o700)


IGNORED = {
    "plain rules": {".gitignore": "*.log\nbuild/\n"},
    "a rule of a folder counts below it": {"deep/.gitignore": "/data\n"},
    "an exception": {".gitignore": "*.bin\n!deep/keep.bin\n"},
    "the nearer file decides": {".gitignore": "*.bin\n", "deep/.gitignore": "!*.bin\n"},
    "a folder that is ignored hides its exceptions": {".gitignore": "deep/\n!deep/keep.bin\n"},
    "everything in a folder but one": {".gitignore": "deep/*\n!deep/keep.bin\n"},
    "rooted and unrooted": {".gitignore": "/x.log\ndeep/**/y.txt\n"},
    "comments, blanks and escapes": {".gitignore": "# x.log\n\n\\#odd\nkeep.bin \n"},
}


@pytest.mark.parametrize("rules", IGNORED.values(), ids=IGNORED)
def test_ignore_files_mean_what_they_mean_to_git(root: Path, rules: dict[str, str]) -> None:
    names = ["x.log", "deep/x.log", "deep/keep.bin", "a.bin", "deep/data/y.txt", "build/z", "deep/build/z", "#odd", "deep/data/data"]
    tree(root, dict.fromkeys(names, "1") | rules)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    assert sorted(sent(root)) == sorted(name for name in listed.stdout.split("\0") if name)


def test_rules_of_the_repository_above_count_too(root: Path) -> None:
    tree(root, {".gitignore": "*.log\n/jobs/skip.txt\n", "jobs/a.py": "1", "jobs/x.log": "1", "jobs/skip.txt": "1"})
    (root / ".git").mkdir()
    assert sorted(sent(root / "jobs")) == ["a.py"]


def test_without_a_repository_rules_above_do_not_count(root: Path) -> None:
    tree(root, {".gitignore": "*.log\n", "jobs/x.log": "1"})
    assert sorted(sent(root / "jobs")) == ["x.log"]


def test_terraceignore_wins_over_gitignore(root: Path) -> None:
    tree(root, {".gitignore": "model.bin\n", ".terraceignore": "!model.bin\nnotes/\n", "model.bin": "1", "notes/n.md": "1"})
    assert sorted(sent(root)) == [".gitignore", ".terraceignore", "model.bin"]


def test_git_itself_and_caches_of_python_are_never_sent(root: Path) -> None:
    tree(
        root, {"a.py": "1", ".git/config": "secret", "sub/.git/config": "secret", "sub/__pycache__/a.pyc": "1", ".terraceignore": "!.git\n"}
    )
    assert sorted(sent(root)) == [".terraceignore", "a.py"]


def test_a_link_to_a_file_inside_is_sent_as_that_file(root: Path) -> None:
    tree(root, {"data/v2.txt": "two"})
    (root / "current.txt").symlink_to("data/v2.txt")
    assert sent(root) == {"data/v2.txt": b"two", "current.txt": b"two"}


def _outside(root: Path) -> None:
    (root.parent / "secret.txt").write_text("s")
    (root / "bad").symlink_to(root.parent / "secret.txt")


def _outside_by_prefix(root: Path) -> None:
    (root.parent / "project-2").mkdir()
    (root.parent / "project-2" / "x").write_text("s")
    (root / "bad").symlink_to("../project-2/x")


def _dangling(root: Path) -> None:
    (root / "bad").symlink_to("absent")


def _folder(root: Path) -> None:
    (root / "folder").mkdir()
    (root / "bad").symlink_to("folder")


def _loop(root: Path) -> None:
    (root / "bad").symlink_to("bad")


def _socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "bad"))


def _fifo(root: Path) -> None:
    os.mkfifo(root / "bad")


@pytest.mark.parametrize("make", [_outside, _outside_by_prefix, _dangling, _folder, _loop, _socket, _fifo])
def test_what_is_no_file_of_the_directory_is_refused_by_name(root: Path, make: object) -> None:
    tree(root, {"a.py": "1"})
    make(root)  # type: ignore[operator]  # one of the functions above
    with pytest.raises(PackingError, match=r"bad: .*\.terraceignore"):
        sent(root)
    (root / ".terraceignore").write_text("bad\n")
    assert sorted(sent(root)) == [".terraceignore", "a.py"]


def test_a_directory_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(PackingError, match="is not a directory"):
        sent(root / "absent")


@pytest.mark.parametrize(
    ("limit", "files"),
    [
        ("FILES_MAXIMUM", {f"{number}.txt": "" for number in range(4)}),
        ("UNPACKED_BYTES_MAXIMUM", {"a.txt": "12", "b.txt": "34"}),
        ("ARCHIVE_BYTES_MAXIMUM", {"a.txt": "1"}),
        ("PATH_LENGTH_MAXIMUM", {"abcd": "1"}),
    ],
    ids=["files", "bytes", "archive bytes", "path"],
)
def test_a_directory_over_a_limit_is_refused_with_the_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: str, files: dict[str, str]
) -> None:
    tree(root, files)
    monkeypatch.setattr(packing, limit, 3)
    with pytest.raises(PackingError, match=r"\b3\b"):
        sent(root)


def test_the_limits_are_those_of_the_service() -> None:
    service = ArchiveLimits()
    assert service.members_maximum == packing.FILES_MAXIMUM
    assert service.unpacked_bytes_maximum == packing.UNPACKED_BYTES_MAXIMUM
    assert service.compressed_bytes_maximum == packing.ARCHIVE_BYTES_MAXIMUM
    assert service.path_length_maximum == packing.PATH_LENGTH_MAXIMUM


def test_an_empty_directory_is_sent_as_nothing(root: Path) -> None:
    assert sent(root) == {}
