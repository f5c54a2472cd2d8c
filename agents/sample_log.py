"""The agent's own record of what it measured, for 48 hours, in one SQLite file of its state directory.

Owns: the file and its bounds. Does not own: what is measured (telemetry.py). The agent only writes it: Prometheus may be down longer than a
lease lives, and whoever must then know what no scrape saw reads the tables (docs/metrics.md). It is evidence, not the ledger, so a broken
file is set aside and a new one begun.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from agents.devices import DeviceSample

RETENTION_MS = 48 * 3_600_000
# About 150 MB; reached only when a node is cut into MIG slices and sampled far more often than by default.
ROWS_MAX = 1_000_000
PRUNE_EVERY_MS = 600_000
FILE_MODE = 0o600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS slice_samples (
    at_ms INTEGER NOT NULL, lease_id TEXT NOT NULL, device_uuid TEXT NOT NULL, slice TEXT NOT NULL, is_simulated INTEGER NOT NULL,
    leased_gpu_us INTEGER NOT NULL, busy_gpu_ns INTEGER, energy_microjoule INTEGER, memory_used_bytes INTEGER
);
CREATE INDEX IF NOT EXISTS slice_samples_by_lease ON slice_samples (lease_id, at_ms);
CREATE INDEX IF NOT EXISTS slice_samples_by_age ON slice_samples (at_ms);
CREATE TABLE IF NOT EXISTS device_samples (
    at_ms INTEGER NOT NULL, device_uuid TEXT NOT NULL, utilisation_permille INTEGER, memory_used_bytes INTEGER,
    power_milliwatt INTEGER, energy_millijoule INTEGER, temperature_celsius INTEGER, fault TEXT
);
CREATE INDEX IF NOT EXISTS device_samples_by_age ON device_samples (at_ms);
"""
_TABLES = ("slice_samples", "device_samples")


class SampleLogError(Exception):
    """The sample log cannot be opened, read or written; the message names the file."""


@dataclass(frozen=True, slots=True)
class SliceSample:
    """A slice's totals since its lease was bound, as of `at_ms`; None where the device does not report the quantity.

    `leased_gpu_us` is GPU-microseconds held, `busy_gpu_ns` GPU-nanoseconds of utilisation: both weighted by the slice's size.
    """

    at_ms: int
    lease_id: str
    device_uuid: str
    slice: str
    is_simulated: bool
    leased_gpu_us: int
    busy_gpu_ns: int | None
    energy_microjoule: int | None
    memory_used_bytes: int | None


class SampleLog:
    """Append-only samples with a bound in age and in rows. Used by one thread at a time, not always the same one."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. A file that is no database is renamed to `*.broken`. Raises `SampleLogError`."""
        self._path = path
        self._pruned_at_ms: int | None = None
        try:
            self._connection = _open(path)
        except sqlite3.OperationalError as error:
            raise SampleLogError(f"{path}: {error}") from error
        except sqlite3.DatabaseError:
            path.replace(path.with_name(path.name + ".broken"))
            self._connection = _open(path)

    def append(self, slices: Sequence[SliceSample], devices: Sequence[DeviceSample], *, now_ms: int) -> None:
        """Write one round of samples in one transaction and forget what is too old. Raises `SampleLogError`, having written nothing."""
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT INTO slice_samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [astuple(row) for row in slices]
                )
                self._connection.executemany(
                    "INSERT INTO device_samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [_device_row(row) for row in devices]
                )
                if self._pruned_at_ms is None or abs(now_ms - self._pruned_at_ms) >= PRUNE_EVERY_MS:
                    self._prune(now_ms)
        except sqlite3.Error as error:
            raise SampleLogError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _prune(self, now_ms: int) -> None:
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table} WHERE at_ms < ?", (now_ms - RETENTION_MS,))  # noqa: S608  # names from _TABLES
            self._connection.execute(
                f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - ?",  # noqa: S608  # names from _TABLES
                (ROWS_MAX // len(_TABLES),),
            )
        self._pruned_at_ms = now_ms


def _open(path: Path) -> sqlite3.Connection:
    with contextlib.suppress(OSError):  # what cannot be made here cannot be opened below, and that says why
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5)
    try:
        # NORMAL: a power cut may cost the last seconds of evidence, never the file.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        raise
    return connection


def _device_row(sample: DeviceSample) -> tuple[int | str | None, ...]:
    return (
        sample.at_ms,
        sample.uuid,
        sample.utilisation_permille,
        sample.memory_used_bytes,
        sample.power_milliwatt,
        sample.energy_millijoule,
        sample.temperature_celsius,
        None if sample.fault is None else f"{sample.fault.code}:{sample.fault.number}",
    )
