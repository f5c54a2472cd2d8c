"""Whose the files of a lease are: given to its user before it starts, taken back and deleted after its end.

Owns: the walks over trees that users' code has made, so each is bounded in depth and descriptors, follows no link and trusts no name. Does
not own: the layout (launch.py) or the proof that no process of the lease can still interfere (supervise.py). The same user id serves
another lease later, so a checkpoint directory is closed between two attempts, and only what a lease owned before is given to the next.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Container
from pathlib import Path

from agents.sandbox.spec import CheckpointError

ENTRIES_MAX = 1_000_000
DEPTH_MAX = 128
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give_files(lease_dir: Path, uid: int) -> None:
    """Give a lease directory and what launch.py just put into it to the lease's user."""
    for entry in os.scandir(lease_dir):
        os.chown(entry.path, uid, uid, follow_symlinks=False)
    os.chown(lease_dir, uid, uid, follow_symlinks=False)


def give_tree(folder: Path, uid: int, *, lease_uids: Container[int]) -> None:
    """Give a checkpoint directory to the next lease's user. What no lease owned (a hard link to somebody's file, say) stays whose it is.

    CheckpointError when it is too large or too deep to be given.
    """
    descriptor = os.open(folder, _FOLDER)
    try:
        _give_entries(descriptor, uid, lease_uids, depth=0, left=ENTRIES_MAX)
        os.chown(descriptor, uid, uid)
    finally:
        os.close(descriptor)


def close_tree(folder: Path, *, owner: int) -> None:
    """Take the top of a checkpoint directory back from `owner`, which closes all below it, and note the time of this last use.

    One that belongs to somebody else was given to the next attempt meanwhile and stays.
    """
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder, _FOLDER)
        try:
            if os.fstat(descriptor).st_uid == owner:
                os.fchmod(descriptor, 0o700)
                os.utime(descriptor)
                if os.geteuid() == 0:
                    os.chown(descriptor, 0, 0)
        finally:
            os.close(descriptor)


def remove_tree(folder: Path) -> None:
    """Delete a folder of any depth with two descriptors: folders inside are first moved up to the top, then emptied in turn."""
    try:
        top = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    except PermissionError:
        os.chmod(folder, 0o700)
        top = os.open(folder, _FOLDER)
    try:
        os.chmod(top, 0o700)
        prefix, moved = f".removing-{secrets.token_hex(8)}-", 0
        while folders := _delete_files(top):
            for name in folders:
                inner = _opened(name, top)
                try:
                    for deeper in _delete_files(inner):
                        os.chmod(deeper, 0o700, dir_fd=inner)
                        os.rename(deeper, f"{prefix}{moved}", src_dir_fd=inner, dst_dir_fd=top)
                        moved += 1
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _give_entries(descriptor: int, uid: int, lease_uids: Container[int], *, depth: int, left: int) -> int:
    """Give everything below an open folder; return how many entries may still come."""
    if depth >= DEPTH_MAX:
        raise CheckpointError(f"checkpoint_dir: holds folders deeper than {DEPTH_MAX}")
    with os.scandir(descriptor) as entries:
        for entry in entries:
            left -= 1
            if left < 0:
                raise CheckpointError(f"checkpoint_dir: holds more than {ENTRIES_MAX} entries")
            status = entry.stat(follow_symlinks=False)
            if status.st_uid not in lease_uids:
                continue
            if stat.S_ISDIR(status.st_mode):
                inner = os.open(entry.name, _FOLDER, dir_fd=descriptor)
                try:
                    left = _give_entries(inner, uid, lease_uids, depth=depth + 1, left=left)
                finally:
                    os.close(inner)
            os.chown(entry.name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
    return left


def _delete_files(descriptor: int) -> list[str]:
    """Delete everything in an open folder but its folders; return their names."""
    folders = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=descriptor)
    return folders


def _opened(name: str, top: int) -> int:
    """Open a folder whose owner may have closed it to itself."""
    os.chmod(name, 0o700, dir_fd=top)
    return os.open(name, _FOLDER, dir_fd=top)
