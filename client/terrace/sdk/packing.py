"""A working directory as one archive, the same bytes for the same files.

Owns: which files go (.gitignore and .terraceignore as git reads them, .git never), and a gzipped tar that is named by its SHA-256: sorted,
without times, owners or modes beyond "executable". Files only: a link to a file inside the directory is sent as that file, and whatever
else is not a plain file is refused. Does not own the upload (jobs.py). Limits are those of the service's defaults.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pathspec

from terrace.sdk.errors import PackingError

FILES_MAXIMUM = 20_000
UNPACKED_BYTES_MAXIMUM = 1 << 30
ARCHIVE_BYTES_MAXIMUM = 256 << 20
PATH_LENGTH_MAXIMUM = 1_024
IGNORE_FILES = (".gitignore", ".terraceignore")  # the later one wins
ALWAYS_IGNORED = frozenset({".git", "__pycache__"})
COMPRESSION_LEVEL = 6
ADVICE = "name it in .terraceignore to leave it out"

Rules = tuple[tuple[Path, pathspec.GitIgnoreSpec], ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """A packed directory. `file` is open for reading from its beginning while the archive is in use."""

    sha256: str
    size_bytes: int
    files: int
    file: IO[bytes]


@contextmanager
def packed(directory: Path) -> Iterator[Archive]:
    """Pack a directory into a temporary file that is gone afterwards; PackingError names the path or limit in the way."""
    root = directory.resolve()
    if not root.is_dir():
        raise PackingError(f"working directory: {directory} is not a directory")
    members = list_files(root)
    with tempfile.TemporaryFile() as file:
        _write(root, members, file)
        size_bytes = file.tell()
        if size_bytes > ARCHIVE_BYTES_MAXIMUM:
            raise PackingError(f"working directory: packs to {size_bytes} bytes, allowed are {ARCHIVE_BYTES_MAXIMUM}; use .terraceignore")
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        yield Archive(sha256, size_bytes, len(members), file)


def list_files(root: Path) -> list[str]:
    """Return the files to send, relative with forward slashes, sorted; PackingError for what cannot be sent."""
    found: list[str] = []
    total = 0
    for path in _walk(root, root, _rules_above(root)):
        name = path.relative_to(root).as_posix()
        if "\\" in name or not _is_utf8(name):
            raise PackingError(f"{name!r}: a name with a backslash, or that is not UTF-8; {ADVICE}")
        if len(name) > PATH_LENGTH_MAXIMUM:
            raise PackingError(f"{name}: the path has more than {PATH_LENGTH_MAXIMUM} characters; {ADVICE}")
        total += _checked(path, name, root).st_size
        found.append(name)
        if len(found) > FILES_MAXIMUM:
            raise PackingError(f"working directory: more than {FILES_MAXIMUM} files; use .terraceignore")
        if total > UNPACKED_BYTES_MAXIMUM:
            raise PackingError(f"working directory: more than {UNPACKED_BYTES_MAXIMUM} bytes; use .terraceignore")
    return sorted(found)


def _walk(directory: Path, root: Path, rules: Rules) -> Iterator[Path]:
    rules = rules + _rules_of(directory)
    for entry in _entries(directory, root):
        is_directory = entry.is_dir(follow_symlinks=False)
        if entry.name in ALWAYS_IGNORED or _is_ignored(Path(entry.path), rules, is_directory=is_directory):
            continue
        if is_directory:
            yield from _walk(Path(entry.path), root, rules)
        else:
            yield Path(entry.path)


def _entries(directory: Path, root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda item: item.name)
    except OSError as error:
        raise PackingError(f"{directory.relative_to(root)}: {error.strerror}; {ADVICE}") from error


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 come as lone surrogates
        return False
    return True


def _is_ignored(path: Path, rules: Rules, *, is_directory: bool) -> bool:
    for base, spec in reversed(rules):  # the nearest file that says anything decides, as in git
        name = path.relative_to(base).as_posix() + ("/" if is_directory else "")
        verdict = spec.check_file(name).include
        if verdict is not None:
            return verdict
    return False


def _rules_above(root: Path) -> Rules:
    """Return the ignore files between the root of the git repository around `root` and `root` itself, outermost first."""
    repository = next((parent for parent in root.parents if (parent / ".git").exists()), None)
    if repository is None or (root / ".git").exists():
        return ()
    between = [parent for parent in reversed(root.parents) if parent == repository or repository in parent.parents]
    return tuple(rule for parent in between for rule in _rules_of(parent))


def _rules_of(directory: Path) -> Rules:
    rules = []
    for name in IGNORE_FILES:
        file = directory / name
        if file.is_file():
            try:
                rules.append((directory, pathspec.GitIgnoreSpec.from_lines(file.read_text().splitlines())))
            except (OSError, ValueError) as error:
                raise PackingError(f"{file}: {error}") from error
    return tuple(rules)


def _checked(path: Path, name: str, root: Path) -> os.stat_result:
    if path.is_symlink() and root not in Path(os.path.realpath(path)).parents:
        raise PackingError(f"{name}: a link that leaves the working directory; {ADVICE}")
    try:
        status = path.stat()
    except OSError as error:
        raise PackingError(f"{name}: {error.strerror}; {ADVICE}") from error
    if not stat.S_ISREG(status.st_mode):
        raise PackingError(f"{name}: is neither a file nor a link to one; {ADVICE}")
    return status


def _write(root: Path, members: list[str], target: IO[bytes]) -> None:
    zipped = gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION_LEVEL, fileobj=target, mtime=0)
    with zipped, tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in members:
            try:
                with (root / name).open("rb") as source:
                    status = os.fstat(source.fileno())
                    archive.addfile(_member(name, status), source)
            except OSError as error:
                raise PackingError(f"{name}: {error.strerror or error}; did it change while it was read?") from error


def _member(name: str, status: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = status.st_size
    member.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    return member
