"""The agent's durable memory: reports that the service has not taken yet, and which leases this node ever took on.

Owns one SQLite file in the agent's state directory. A report is written here before anybody is told of it and deleted when the service
has accepted it, so nothing is lost while the service is away or the agent restarts. A lease is written down before anything of it is
started, so a restarted agent never starts it again. Does not own sending (reporting.py). Bounded: output is dropped beyond
`bytes_maximum`, with one note per lease, and the newest progress report of a lease replaces the one before it that still waits, but for
the word of a checkpoint, which only the word of a newer one replaces.

A file that is damaged is set aside and a new one begun. What it knew is lost then, so whatever the service assigns first is counted as
taken on before: better a job that runs again under a new lease than one that runs twice under one (`has_lost_memory`, `take_as_lost`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from terrace.runtime import progress

BUSY_SECONDS = 10.0
DROPPED_NOTE = "\n[terrace: output was dropped here, because the service could not be reached for too long or the disk was full]\n"
LEASES_REMEMBERED_MAXIMUM = 10_000
FILE_MODE = 0o600
UNKNOWN_BOOT = "unknown"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, kind TEXT NOT NULL, lease_id TEXT,
    observed_at_ms INTEGER NOT NULL, data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS reports_by_lease ON reports (lease_id);
CREATE TABLE IF NOT EXISTS leases (
    lease_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, device_uuids TEXT NOT NULL, is_gone INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS lost_memory (since_boot_id TEXT PRIMARY KEY);
"""
_OLDEST = """
SELECT seq, boot_id, kind, lease_id, observed_at_ms, data, LENGTH(data) FROM reports WHERE boot_id = ? ORDER BY seq LIMIT ?
"""
_INSERT = "INSERT INTO reports (boot_id, kind, lease_id, observed_at_ms, data) VALUES (?, ?, ?, ?, ?)"
_TAKEN_BEFORE = "SELECT lease_id, device_uuids FROM leases WHERE is_gone = 0 AND boot_id <> ? ORDER BY lease_id LIMIT ?"
_OLDER_PROGRESS = "kind = 'progress' AND lease_id = ? AND boot_id = ?"
_MERE_PROGRESS = f"{_OLDER_PROGRESS} AND json_extract(data, '$.checkpoint') IS NULL"  # the word of a checkpoint waits for a newer one
_DONE = """
SELECT lease_id FROM leases WHERE is_gone = 1 AND lease_id NOT IN (SELECT lease_id FROM reports WHERE lease_id IS NOT NULL)
"""

log = structlog.get_logger()


class SpoolError(Exception):
    """The spool cannot be opened, read or written; the message names the file."""


class SpoolBusyError(SpoolError):
    """Not now: the disk is full, or does not answer. Nothing was written; trying again later is right."""


class LeaseMemory(StrEnum):
    """What the spool knows of a lease."""

    UNKNOWN = "unknown"  # never taken on here: it may be started
    TAKEN = "taken"  # by this boot or an earlier one; not proven gone
    GONE = "gone"  # proven gone, and reported


@dataclass(frozen=True, slots=True)
class Report:
    """One thing seen, as it is kept."""

    seq: int
    boot_id: str
    kind: str
    lease_id: str | None
    observed_at_ms: int
    data: Mapping[str, Any]


class Spool:
    """The open file. Safe from any thread. What is written is durable when the call returns, or at the end of its `together`."""

    def __init__(self, path: Path, *, boot_id: str, bytes_maximum: int) -> None:
        """Open or create the file, readable by its owner only; SpoolError when that cannot be done."""
        self._path, self._boot_id, self._bytes_maximum = path, boot_id, bytes_maximum
        self._lock = threading.RLock()
        self._depth = 0
        self._dropping: set[str] = set()
        with self._translated():
            try:
                self._connection = _open(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                aside = _set_aside(path)
                log.error("the spool is damaged and is set aside; leases assigned now count as lost", file=str(aside), error=str(error))
                self._connection = _open(path)
                self._connection.execute("INSERT OR IGNORE INTO lost_memory VALUES (?)", (boot_id,))
            self._bytes = self._sum("1 = 1", ())

    @property
    def size_bytes(self) -> int:
        """Bytes of data that wait."""
        return self._bytes

    def is_empty(self) -> bool:
        """True when no report waits. May wait for a write that is under way."""
        return not self._read("SELECT 1 FROM reports LIMIT 1", ())

    def has_lost_memory(self) -> bool:
        """True from the loss of a damaged file until `take_as_lost`."""
        return bool(self._read("SELECT 1 FROM lost_memory", ()))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make everything that is written inside durable at once, or nothing of it."""
        with self._lock, self._transaction():
            yield

    def add(self, kind: str, lease_id: str | None, data: Mapping[str, Any], *, observed_at_ms: int) -> None:
        """Keep a report until it is accepted."""
        with self._lock, self._transaction():
            if kind == "progress":
                self._delete(_OLDER_PROGRESS if progress.is_checkpoint(data) else _MERE_PROGRESS, (lease_id, self._boot_id))
            self._insert(kind, lease_id, data, observed_at_ms)

    def add_output(self, lease_id: str, offset: int, text: str, *, observed_at_ms: int) -> int:
        """Keep a piece of output and return the offset after it, in bytes of UTF-8. Beyond the limit it is dropped, with one note."""
        with self._lock, self._transaction():
            if self._bytes + len(text) > self._bytes_maximum:
                if lease_id in self._dropping:
                    return offset
                self._dropping.add(lease_id)
                text = DROPPED_NOTE
            else:
                self._dropping.discard(lease_id)
            self._insert("log", lease_id, {"offset": offset, "text": text}, observed_at_ms)
            return offset + len(text.encode())

    def oldest(self, *, reports_maximum: int, bytes_maximum: int) -> list[Report]:
        """Return the oldest reports of the oldest boot, in order, at least one if there is any."""
        found: list[Report] = []
        total = 0
        with self._lock, self._translated():
            first = self._connection.execute("SELECT boot_id FROM reports ORDER BY seq LIMIT 1").fetchone()
            rows = self._connection.execute(_OLDEST, (first[0], reports_maximum)) if first else ()
            for seq, boot_id, kind, lease_id, observed_at_ms, data, size_bytes in rows:
                total += size_bytes
                if found and total > bytes_maximum:
                    break
                found.append(Report(seq, boot_id, kind, lease_id, observed_at_ms, json.loads(data)))
        return found

    def forget_through(self, seq: int, *, boot_id: str) -> None:
        """Delete the reports of `boot_id` up to `seq`: the service has them."""
        with self._lock, self._transaction():
            self._delete("boot_id = ? AND seq <= ?", (boot_id, seq))

    def forget(self, seq: int) -> None:
        """Delete one report, which the service refused for good."""
        with self._lock, self._transaction():
            self._delete("seq = ?", (seq,))

    def memory_of(self, lease_id: str) -> tuple[LeaseMemory, bool]:
        """Return (what is known of the lease, whether this boot took it on)."""
        rows = self._read("SELECT boot_id, is_gone FROM leases WHERE lease_id = ?", (lease_id,))
        if not rows:
            return LeaseMemory.UNKNOWN, False
        return (LeaseMemory.GONE if rows[0][1] else LeaseMemory.TAKEN), rows[0][0] == self._boot_id

    def take(self, lease_id: str, device_uuids: Sequence[str]) -> None:
        """Write down that this boot takes the lease on: from here it is never started again."""
        self._take(self._boot_id, lease_id, device_uuids)

    def take_as_lost(self, leases: Mapping[str, Sequence[str]]) -> None:
        """Write down that some boot before took these leases on, which ends `has_lost_memory`."""
        with self.together():
            for lease_id, device_uuids in leases.items():
                self._take(UNKNOWN_BOOT, lease_id, device_uuids)
            self._write("DELETE FROM lost_memory", ())

    def taken_before(self) -> dict[str, tuple[str, ...]]:
        """Return the leases that earlier boots took on and that are not proven gone, with their devices."""
        rows = self._read(_TAKEN_BEFORE, (self._boot_id, LEASES_REMEMBERED_MAXIMUM))
        return {lease_id: tuple(json.loads(device_uuids)) for lease_id, device_uuids in rows}

    def report_gone(self, lease_id: str, *, observed_at_ms: int) -> None:
        """Write down that the lease is proven gone, together with the report of it."""
        with self._lock, self._transaction():
            self._write("UPDATE leases SET is_gone = 1 WHERE lease_id = ?", (lease_id,))
            self._insert("gone", lease_id, {}, observed_at_ms)

    def forget_leases_but(self, assigned: set[str]) -> None:
        """Forget gone leases that the service does not name any more and of which nothing waits: they can never be assigned again."""
        with self._lock:
            done = [row for row in self._read(_DONE, ()) if row[0] not in assigned]
            if done:
                with self._transaction():
                    for row in done:
                        self._write("DELETE FROM leases WHERE lease_id = ?", row)
                        self._dropping.discard(row[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _take(self, boot_id: str, lease_id: str, device_uuids: Sequence[str]) -> None:
        with self._lock, self._transaction():
            values = (lease_id, boot_id, json.dumps(list(device_uuids)))
            self._write("INSERT INTO leases (lease_id, boot_id, device_uuids) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", values)

    def _insert(self, kind: str, lease_id: str | None, data: Mapping[str, Any], observed_at_ms: int) -> None:
        text = json.dumps(data)
        self._write(_INSERT, (self._boot_id, kind, lease_id, observed_at_ms, text))
        self._bytes += len(text)

    def _delete(self, condition: str, values: tuple[Any, ...]) -> None:
        freed = self._sum(condition, values)
        self._write(f"DELETE FROM reports WHERE {condition}", values)  # noqa: S608  # conditions are written in this file
        self._bytes -= freed

    def _sum(self, condition: str, values: tuple[Any, ...]) -> int:
        return int(self._read(f"SELECT COALESCE(SUM(LENGTH(data)), 0) FROM reports WHERE {condition}", values)[0][0])  # noqa: S608  # as above

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit at the outermost end; on an error undo everything since its beginning, the counted bytes too."""
        bytes_before = self._bytes
        if self._depth == 0:
            self._write("BEGIN IMMEDIATE", ())
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._write("COMMIT", ())
        except BaseException:
            self._bytes = bytes_before
            if self._depth == 1:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._translated():
            self._connection.execute(statement, values)

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        with self._lock, self._translated():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise SpoolBusyError(f"{self._path}: {error}") from error
        except sqlite3.Error as error:
            raise SpoolError(f"{self._path}: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    """Open the file and see that it is whole; sqlite3.DatabaseError when it is damaged."""
    with contextlib.suppress(FileExistsError, OSError):  # what cannot be made here cannot be opened below, and that says why
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error:
        connection.close()
        raise
    if found != "ok":
        connection.close()
        raise sqlite3.DatabaseError(found)
    return connection


def _set_aside(path: Path) -> Path:
    """Rename the file and what belongs to it to `*.broken`, in place of an earlier one."""
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(path.with_name(f"{path.name}.broken{suffix}"))
    return path.with_name(f"{path.name}.broken")
