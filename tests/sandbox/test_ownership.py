"""Trees that users' code made, given, closed and deleted: however deep, closed or linked they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.sandbox import ownership
from agents.sandbox.spec import CheckpointError

LEASES = range(60_600, 60_610)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def deep(folder: Path, levels: int) -> None:
    """Make folders in folders, deeper than any path can be long."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=descriptor)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def made_by(uid: int, path: Path) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def owner(path: Path) -> int:
    return path.stat(follow_symlinks=False).st_uid


def test_tree_deeper_than_any_path_or_stack_is_deleted(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep(tree, 1_200)

    ownership.remove_tree(tree)

    assert [*tmp_path.iterdir()] == []


def test_folders_that_are_closed_to_their_owner_are_deleted(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/c/file").write_text("x")
    for folder in ("a/b/c", "a/b", "a", ""):
        (tree / folder).chmod(0)

    ownership.remove_tree(tree)

    assert [*tmp_path.iterdir()] == []


def test_links_are_deleted_and_what_they_point_at_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/link").symlink_to(tmp_path / "kept")
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")

    ownership.remove_tree(tmp_path / "tree")

    assert (tmp_path / "kept/file").read_text() == "x"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_tree_that_is_not_there_is_deleted_already(tmp_path: Path) -> None:
    ownership.remove_tree(tmp_path / "nothing")

    assert [*tmp_path.iterdir()] == []


@needs_root
def test_checkpoint_of_the_last_attempt_is_given_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    mine = [made_by(60_601, path) for path in (tmp_path / "inner", tmp_path)]
    (tmp_path / "inner/step").write_text("41")
    mine.append(made_by(60_601, tmp_path / "inner/step"))

    ownership.give_tree(tmp_path, 60_605, lease_uids=LEASES)

    assert {owner(path) for path in mine} == {60_605}


@needs_root
def test_hard_link_to_somebody_s_file_and_target_of_a_link_are_not_given_away(tmp_path: Path) -> None:
    secret, checkpoint = tmp_path / "secret", tmp_path / "checkpoint"
    secret.write_text("root's own")
    checkpoint.mkdir()
    os.link(secret, checkpoint / "hard")
    (checkpoint / "soft").symlink_to(secret)
    made_by(60_601, checkpoint / "soft")

    ownership.give_tree(checkpoint, 60_605, lease_uids=LEASES)

    assert (owner(secret), owner(checkpoint / "hard"), owner(checkpoint / "soft")) == (0, 0, 60_605)


@needs_root
def test_checkpoint_is_closed_between_two_attempts(tmp_path: Path) -> None:
    made_by(60_601, tmp_path).chmod(0o777)
    os.utime(tmp_path, (0, 4_000_000_000))

    ownership.close_tree(tmp_path, owner=60_601)

    status = tmp_path.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o700)
    assert status.st_mtime < 4_000_000_000


@needs_root
def test_checkpoint_that_the_next_attempt_has_already_is_not_closed(tmp_path: Path) -> None:
    made_by(60_605, tmp_path).chmod(0o755)

    ownership.close_tree(tmp_path, owner=60_601)

    assert (owner(tmp_path), tmp_path.stat().st_mode & 0o777) == (60_605, 0o755)


@needs_root
@pytest.mark.parametrize("levels", [ownership.DEPTH_MAX, 1_200])
def test_checkpoint_too_deep_to_be_given_is_refused(levels: int, tmp_path: Path) -> None:
    deep(tmp_path, levels)
    descriptors = len(os.listdir("/proc/self/fd"))

    with pytest.raises(CheckpointError, match=f"folders deeper than {ownership.DEPTH_MAX}"):
        ownership.give_tree(tmp_path, 60_605, lease_uids=[0])

    assert len(os.listdir("/proc/self/fd")) <= descriptors  # others may be closed meanwhile, none may be left open
    ownership.remove_tree(tmp_path / "deeper")  # nobody else could


@needs_root
def test_checkpoint_with_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "ENTRIES_MAX", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()

    with pytest.raises(CheckpointError, match="more than 3 entries"):
        ownership.give_tree(tmp_path, 60_605, lease_uids=LEASES)
