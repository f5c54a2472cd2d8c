"""What a lease sees of the machine's files: folders covered up, and the few below them that it needs shown again.

Owns: the order of covers and exposures and the mount calls. Does not own: which folders (launch.py decides) or the namespaces
(enter.py has made the mount namespace before). Standard library only: it runs before the lease is entered.

Covers and exposures are applied from the outermost folder inwards. Everything that will be shown is opened before
anything is covered, so it can be bound to its place after its old way was closed. Last, all that the lease was not given to write
becomes read-only, so that nothing of it stays on the machine and nothing passes from one lease to the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 1, 2, 4, 8, 32, 1024, 2048
MS_BIND, MS_REC, MS_RELATIME = 4096, 16384, 1 << 21
# Mount options that a less privileged namespace may not drop, by their statvfs flag.
KEPT_FLAGS = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_NOATIME, MS_NOATIME),
    (os.ST_RELATIME, MS_RELATIME),
)
COVER_OPTIONS = "mode=755,size=1m,nr_inodes=4k"
# mount_setattr(2), since Linux 5.12; new system calls have one number on all architectures.
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 0x1
# A new proc mount is refused in a namespace whose old one was made read-only.
ALWAYS_WRITABLE = ("/proc",)

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


@dataclass(frozen=True, slots=True)
class Cover:
    """A folder hidden under an empty one, or a folder or file under `source` when given. `options` are tmpfs mount options."""

    path: str
    source: str | None = None
    options: str = COVER_OPTIONS
    is_writable: bool = False


@dataclass(frozen=True, slots=True)
class Exposure:
    """A folder shown at its own place although something above it is covered."""

    path: str
    is_read_only: bool


def closed_ancestors(paths: Iterable[str], uid: int) -> list[str]:
    """Return the outermost folders above `paths` that the user may not pass through, and that must thus be covered."""
    return sorted({closed[0] for path in paths if (closed := closed_on_the_way(path, uid))})


def closed_on_the_way(path: str, uid: int) -> list[str]:
    """Return every folder above `path` that the user may not pass through, the outermost first."""
    closed = []
    for ancestor in reversed(Path(os.path.realpath(path)).parents):
        status = ancestor.stat()
        if not status.st_mode & (0o100 if status.st_uid == uid else 0o001):
            closed.append(str(ancestor))
    return closed


def apply(covers: Sequence[Cover], exposures: Sequence[Exposure]) -> None:
    """Cover and expose inside the current mount namespace; OSError names the folder that failed."""
    opened: dict[int, int] = {}
    items: list[tuple[str, Cover | Exposure]] = []
    for cover in covers:
        items.append((cover.path, cover))
        if cover.source is not None:
            opened[id(cover)] = os.open(cover.source, os.O_PATH)
    for exposure in exposures:
        opened[id(exposure)] = os.open(exposure.path, os.O_PATH | os.O_DIRECTORY)
        items.extend((path, exposure) for path in {exposure.path, os.path.realpath(exposure.path)})
    for path, item in sorted(items, key=lambda entry: (len(Path(entry[0]).parts), entry[0])):
        if isinstance(item, Cover):
            _cover(path, item, opened.get(id(item)))
        else:
            _expose(path, item, opened[id(item)])
    for descriptor in opened.values():
        os.close(descriptor)


def seal(covers: Sequence[Cover], exposures: Sequence[Exposure]) -> None:
    """Make every mount read-only but what `covers` and `exposures` say may be written, after `apply`.

    A kernel before 5.12 cannot; there a lease is held by file permissions alone.
    """
    try:
        _set_attributes("/", _MountAttributes(set=MOUNT_ATTR_RDONLY), flags=AT_RECURSIVE)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return
        raise
    shown = {os.path.realpath(item.path) for item in exposures if not item.is_read_only}
    for path in (*ALWAYS_WRITABLE, *(cover.path for cover in covers if cover.is_writable), *sorted(shown)):
        with contextlib.suppress(FileNotFoundError):  # hidden by a cover further out
            _set_attributes(path, _MountAttributes(clear=MOUNT_ATTR_RDONLY))


def _cover(path: str, cover: Cover, source: int | None) -> None:
    if not os.path.exists(path):
        return  # already hidden by a cover further out
    if source is None:
        mount("tmpfs", path, kind="tmpfs", flags=MS_NOSUID | MS_NODEV, options=cover.options)
    else:
        mount(f"/proc/self/fd/{source}", path, flags=MS_BIND | MS_REC)


def _expose(path: str, exposure: Exposure, source: int) -> None:
    if not (os.path.isdir(path) and os.path.samestat(os.stat(path), os.fstat(source))):
        os.makedirs(path, mode=0o755, exist_ok=True)
        mount(f"/proc/self/fd/{source}", path, flags=MS_BIND | MS_REC)
    else:
        mount(path, path, flags=MS_BIND | MS_REC)
    if exposure.is_read_only:
        kept = os.statvfs(path).f_flag
        mount("none", path, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | sum(flag for seen, flag in KEPT_FLAGS if kept & seen))


def mount(source: str, target: str, *, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Call mount(2); OSError with the target on failure."""
    encoded = (os.fsencode(source), os.fsencode(target), kind.encode() if kind else None)
    if _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() if options else None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount: {os.strerror(code)}", target)


def _set_attributes(path: str, attributes: _MountAttributes, *, flags: int = 0) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if _libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags), ctypes.byref(attributes), size) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount_setattr: {os.strerror(code)}", path)
