"""Unpacking what a stranger sent: what is accepted, what is refused, and that a refusal names the member and the limit."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from agents.sandbox import archive
from agents.sandbox.archive import ArchiveRefusedError
from terrace.runtime.archive_rules import MemberLimits

LIMITS = MemberLimits(members=10, path_bytes=300, path_parts=5)


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    information = tarfile.TarInfo(name)
    information.size = len(content)
    for field, value in fields.items():
        setattr(information, field, value)
    return information, content


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for information, content in members:
            tar.addfile(information, io.BytesIO(content))
    return path / "a.tar.gz"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_files_and_folders_arrive_with_no_more_of_their_mode_than_executable(tmp_path: Path, target: Path) -> None:
    sent = packed(
        tmp_path,
        member("empty", type=tarfile.DIRTYPE, mode=0o000),
        member("src/train.py", b"print(1)", mode=0o644),
        member("run.sh", b"#!", mode=0o6777),
    )

    count = archive.unpack(sent, target, limits=LIMITS)

    modes = {path.relative_to(target).as_posix(): path.stat().st_mode & 0o7777 for path in target.rglob("*") if path.is_file()}
    assert (count, modes) == (2, {"src/train.py": 0o644, "run.sh": 0o755})
    assert (target / "empty").is_dir()


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        pytest.param(member("../out"), "'../out': '..' is not accepted", id="out of the folder"),
        pytest.param(member("a/../../out"), "'..' is not accepted", id="out by a detour"),
        pytest.param(member("/etc/out"), "absolute paths are not accepted", id="absolute"),
        pytest.param(member("link", type=tarfile.SYMTYPE, linkname="/etc"), "no links", id="symbolic link"),
        pytest.param(member("link", type=tarfile.LNKTYPE, linkname="a"), "no links", id="hard link"),
        pytest.param(member("pipe", type=tarfile.FIFOTYPE), "no links, devices, pipes", id="pipe"),
        pytest.param(member("device", type=tarfile.CHRTYPE), "no links, devices", id="device"),
        pytest.param(member("x" * 301), "longer than path_bytes = 300", id="long path"),
        pytest.param(member("x" * 256), "longer than name_bytes = 255", id="long name"),
        pytest.param(member("1/2/3/4/5/6"), "deeper than path_parts = 5", id="deep"),
        pytest.param(member("zeros", bytes(1_000_001)), "more than unpacked_bytes = 1000000", id="bomb"),
    ],
)
def test_hostile_member_is_refused_by_rule_and_limit(
    hostile: tuple[tarfile.TarInfo, bytes], message: str, tmp_path: Path, target: Path
) -> None:
    with pytest.raises(ArchiveRefusedError) as refusal:
        archive.unpack(packed(tmp_path, hostile), target, limits=LIMITS, unpacked_bytes=1_000_000)

    assert message in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["work", "a.tar.gz"] or (tmp_path / "out").exists() is False


@pytest.mark.parametrize(
    "members",
    [
        pytest.param((member("a", b"1"), member("a", b"2")), id="a file twice"),
        pytest.param((member("a", b"1"), member("a/b", b"2")), id="a file used as a folder"),
        pytest.param((member("a/b", b"1"), member("a", b"2")), id="a folder used as a file"),
    ],
)
def test_names_that_contradict_one_another_are_refused(
    members: tuple[tuple[tarfile.TarInfo, bytes], ...], tmp_path: Path, target: Path
) -> None:
    with pytest.raises(ArchiveRefusedError, match="named twice, or a file where a folder is needed"):
        archive.unpack(packed(tmp_path, *members), target, limits=LIMITS)


def test_more_members_than_allowed_are_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ArchiveRefusedError, match="more than members = 10"):
        archive.unpack(packed(tmp_path, *(member(str(number)) for number in range(11))), target, limits=LIMITS)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"plain text", id="no gzip"),
        pytest.param(gzip.compress(b"plain text" * 100), id="no tar"),
        pytest.param(gzip.compress(b"x" * 2_000)[:-20], id="cut off"),
    ],
)
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path, target: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)

    with pytest.raises(ArchiveRefusedError, match=r"not a complete tar\.gz file"):
        archive.unpack(tmp_path / "a.tar.gz", target, limits=LIMITS)


def test_archive_cut_off_in_the_middle_of_a_file_is_refused(tmp_path: Path, target: Path) -> None:
    whole = packed(tmp_path, member("a", b"x" * 100_000))
    whole.write_bytes(gzip.compress(gzip.decompress(whole.read_bytes())[:50_000]))

    with pytest.raises(ArchiveRefusedError, match=r"not a complete tar\.gz file"):
        archive.unpack(whole, target, limits=LIMITS)
