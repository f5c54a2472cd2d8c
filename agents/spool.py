"""The agent's durable memory: reports that the service has not taken yet, and which leases this node ever took on.

Owns one SQLite file in the agent's state directory. A report is written here before anybody is told of it and deleted when the service
has accepted it, so nothing is lost while the service is away or the agent restarts. A lease is written down before anything of it is
started, so a restarted agent never starts it again. Does not own sending (reporting.py). Bounded: output is dropped beyond
`bytes_maximum`, with one note per lease, and the newest progress report of a lease replaces the one before it that still waits.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

BUSY_SECONDS = 10.0
DROPPED_NOTE = "\n[terrace: output was dropped here, because the service could not be reached for too long]\n"
LEASES_REMEMBERED_MAXIMUM = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, kind TEXT NOT NULL, lease_id TEXT,
    observed_at_ms INTEGER NOT NULL, data TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS leases (
    lease_id TEXT PRIMARY KEY, boot_id TEXT NOT NULL, device_uuids TEXT NOT NULL, is_gone INTEGER NOT NULL DEFAULT 0
);
"""


_OLDEST = """
SELECT seq, boot_id, kind, lease_id, observed_at_ms, data, LENGTH(data) FROM reports WHERE boot_id = ? ORDER BY seq LIMIT ?
"""
_TAKEN_BEFORE = "SELECT lease_id, device_uuids FROM leases WHERE is_gone = 0 AND boot_id <> ? ORDER BY lease_id LIMIT ?"
_DONE = """
SELECT lease_id FROM leases WHERE is_gone = 1 AND lease_id NOT IN (SELECT lease_id FROM reports WHERE lease_id IS NOT NULL)
"""


class SpoolError(Exception):
    """The spool cannot be opened or written; the message names the file."""


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
    """The open file. Safe from any thread. Every `add` is durable when it returns, but output, which may lose its last moments."""

    def __init__(self, path: Path, *, boot_id: str, bytes_maximum: int) -> None:
        """Open or create the file; SpoolError when that cannot be done."""
        self._path, self._boot_id, self._bytes_maximum = path, boot_id, bytes_maximum
        self._lock = threading.Lock()
        self._dropping: set[str] = set()
        try:
            self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            self._bytes = int(self._connection.execute("SELECT COALESCE(SUM(LENGTH(data)), 0) FROM reports").fetchone()[0])
        except sqlite3.Error as error:
            raise SpoolError(f"{path}: {error}") from error

    @property
    def size_bytes(self) -> int:
        """Bytes of data that wait."""
        return self._bytes

    def add(self, kind: str, lease_id: str | None, data: Mapping[str, Any], *, observed_at_ms: int) -> None:
        """Keep a report until it is accepted. SpoolError when the disk refuses."""
        with self._lock:
            if kind == "progress":
                self._write("DELETE FROM reports WHERE kind = 'progress' AND lease_id = ? AND boot_id = ?", (lease_id, self._boot_id))
            self._insert(kind, lease_id, data, observed_at_ms)

    def add_output(self, lease_id: str, offset: int, text: str, *, observed_at_ms: int) -> int:
        """Keep a piece of output and return the offset after it, in bytes of UTF-8. Beyond the limit it is dropped, with one note."""
        with self._lock:
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
        with self._lock:
            first = self._connection.execute("SELECT boot_id FROM reports ORDER BY seq LIMIT 1").fetchone()
            if first is None:
                return []
            rows = self._connection.execute(_OLDEST, (first[0], reports_maximum)).fetchall()
        found: list[Report] = []
        total = 0
        for seq, boot_id, kind, lease_id, observed_at_ms, data, size_bytes in rows:
            total += size_bytes
            if found and total > bytes_maximum:
                break
            found.append(Report(seq, boot_id, kind, lease_id, observed_at_ms, json.loads(data)))
        return found

    def forget_through(self, seq: int, *, boot_id: str) -> None:
        """Delete the reports of `boot_id` up to `seq`: the service has them."""
        with self._lock:
            self._write("DELETE FROM reports WHERE boot_id = ? AND seq <= ?", (boot_id, seq))
            self._bytes = int(self._connection.execute("SELECT COALESCE(SUM(LENGTH(data)), 0) FROM reports").fetchone()[0])

    def forget(self, seq: int) -> None:
        """Delete one report, which the service refused for good."""
        with self._lock:
            self._write("DELETE FROM reports WHERE seq = ?", (seq,))

    def memory_of(self, lease_id: str) -> tuple[LeaseMemory, bool]:
        """Return (what is known of the lease, whether this boot took it on)."""
        with self._lock:
            row = self._connection.execute("SELECT boot_id, is_gone FROM leases WHERE lease_id = ?", (lease_id,)).fetchone()
        if row is None:
            return LeaseMemory.UNKNOWN, False
        return (LeaseMemory.GONE if row[1] else LeaseMemory.TAKEN), row[0] == self._boot_id

    def take(self, lease_id: str, device_uuids: Sequence[str]) -> None:
        """Write down that this boot takes the lease on: from here it is never started again."""
        with self._lock:
            values = (lease_id, self._boot_id, json.dumps(list(device_uuids)))
            self._write("INSERT INTO leases (lease_id, boot_id, device_uuids) VALUES (?, ?, ?)", values)

    def taken_before(self) -> dict[str, tuple[str, ...]]:
        """Return the leases that earlier boots took on and that are not proven gone, with their devices."""
        with self._lock:
            rows = self._connection.execute(_TAKEN_BEFORE, (self._boot_id, LEASES_REMEMBERED_MAXIMUM)).fetchall()
        return {lease_id: tuple(json.loads(device_uuids)) for lease_id, device_uuids in rows}

    def report_gone(self, lease_id: str, *, observed_at_ms: int) -> None:
        """Write down that the lease is proven gone, together with the report of it."""
        with self._lock:
            self._write("BEGIN", ())
            self._write("UPDATE leases SET is_gone = 1 WHERE lease_id = ?", (lease_id,))
            self._insert("gone", lease_id, {}, observed_at_ms)
            self._write("COMMIT", ())

    def forget_leases_but(self, assigned: set[str]) -> None:
        """Forget gone leases that the service does not name any more and of which nothing waits: they can never be assigned again."""
        with self._lock:
            done = [row for row in self._connection.execute(_DONE).fetchall() if row[0] not in assigned]
            for row in done:
                self._write("DELETE FROM leases WHERE lease_id = ?", row)
                self._dropping.discard(row[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _insert(self, kind: str, lease_id: str | None, data: Mapping[str, Any], observed_at_ms: int) -> None:
        text = json.dumps(data)
        self._write(
            "INSERT INTO reports (boot_id, kind, lease_id, observed_at_ms, data) VALUES (?, ?, ?, ?, ?)",
            (self._boot_id, kind, lease_id, observed_at_ms, text),
        )
        self._bytes += len(text)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise SpoolError(f"{self._path}: {error}") from error
