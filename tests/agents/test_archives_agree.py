"""What the API takes, an agent unpacks: an archive that only the second refuses would have cost a lease its devices."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from agents.sandbox import archive
from agents.sandbox.archive import ArchiveRefusedError
from api import archive_judge
from api.settings import ArchiveLimits
from store.errors import InvalidError
from terrace.runtime.archive_rules import MemberLimits

DEEP = "/".join("d" * 65)


def packed(path: Path, *names: str, **fields: Any) -> Path:
    with tarfile.open(path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            information = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(information, field, value)
            tar.addfile(information, io.BytesIO())
    return path / "a.tar.gz"


@pytest.mark.parametrize(
    ("names", "code"),
    [
        pytest.param((DEEP,), "archive_member_path", id="deeper than 64 folders"),
        pytest.param(("x" * 256,), "archive_member_path", id="a name that no disk takes"),
        pytest.param(("ü" * 128,), "archive_member_path", id="a name of 256 bytes in 128 letters"),
        pytest.param(("/".join(["ü" * 100] * 6),), "archive_member_path", id="a path of 1,205 bytes in 605 letters"),
        pytest.param(("a", "a"), "archive_member_path", id="a file twice"),
        pytest.param(("a", "a/b"), "archive_member_path", id="a file used as a folder"),
        pytest.param(("a/b", "a"), "archive_member_path", id="a folder used as a file"),
        pytest.param(("./a", "a"), "archive_member_path", id="a file twice by two paths"),
        pytest.param(("a\\b",), "archive_member_path", id="a backslash"),
        pytest.param((".",), "archive_member_path", id="a file in the place of the directory"),
    ],
)
def test_both_refuse_the_same(names: tuple[str, ...], code: str, tmp_path: Path) -> None:
    sent = packed(tmp_path, *names)
    (tmp_path / "work").mkdir()

    with pytest.raises(ArchiveRefusedError) as by_agent:
        archive.unpack(sent, tmp_path / "work")
    with pytest.raises(InvalidError) as by_api:
        archive_judge.judge(sent, limits=ArchiveLimits())

    assert by_api.value.code == code
    assert str(by_agent.value).removeprefix("archive: ") in str(by_api.value)


def test_both_take_the_same(tmp_path: Path) -> None:
    sent = packed(tmp_path, "a/b/c", "a/b/d", "./e", "/".join(["d" * 15] * 64))
    (tmp_path / "work").mkdir()

    archive_judge.judge(sent, limits=ArchiveLimits())

    assert archive.unpack(sent, tmp_path / "work") == 4


def test_folder_may_come_twice(tmp_path: Path) -> None:
    sent = packed(tmp_path, ".", "a", "./a/", "a/b", type=tarfile.DIRTYPE)
    (tmp_path / "work").mkdir()

    archive_judge.judge(sent, limits=ArchiveLimits())

    assert (archive.unpack(sent, tmp_path / "work"), (tmp_path / "work/a/b").is_dir()) == (0, True)


def test_folders_that_members_only_imply_are_bounded(tmp_path: Path) -> None:
    sent = packed(tmp_path, *(f"{number}/" + "/".join("d" * 60) for number in range(4)))

    with pytest.raises(InvalidError, match="in too many folders: 200 files and folders are the limit"):
        archive_judge.judge(sent, limits=ArchiveLimits(members_maximum=100))


def test_agents_take_as_much_as_the_api_does() -> None:
    taken, unpacked = ArchiveLimits(), MemberLimits()

    assert taken.members_maximum <= unpacked.members
    assert taken.path_length_maximum <= unpacked.path_bytes
    assert taken.unpacked_bytes_maximum <= archive.UNPACKED_BYTES_MAX
