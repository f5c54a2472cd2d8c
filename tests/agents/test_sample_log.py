"""The agent's record: what it keeps, for how long, and how it behaves when the disk does not."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agents import sample_log
from agents.devices import DeviceSample
from agents.sample_log import SampleLog, SampleLogError, SliceSample
from agents.simulated import SimulatedDeviceSet
from agents.telemetry import LeasedSlice, Telemetry


def slice_sample(at_ms: int, lease_id: str = "lea_a", leased_gpu_us: int = 0) -> SliceSample:
    return SliceSample(at_ms, lease_id, "GPU-1", "whole", True, leased_gpu_us, None, 7, None)


def rows(folder: Path, columns: str, table: str = "slice_samples") -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "samples.db")) as file:
        return file.execute(f"SELECT {columns} FROM {table} ORDER BY at_ms").fetchall()  # noqa: S608  # names of this file


def test_what_is_documented_to_be_kept_is_kept(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(1)], [DeviceSample(uuid="GPU-1", at_ms=1)], now_ms=1)
    log.append([slice_sample(2), slice_sample(3)], [], now_ms=3)

    assert rows(tmp_path, "*") == [(at_ms, "lea_a", "GPU-1", "whole", 1, 0, None, 7, None) for at_ms in (1, 2, 3)]
    assert rows(tmp_path, "at_ms, device_uuid", "device_samples") == [(1, "GPU-1")]


def test_first_and_last_totals_of_a_lease_are_kept_however_short_it_was(tmp_path: Path) -> None:
    devices = SimulatedDeviceSet("node-a")
    telemetry = Telemetry(devices, node="node-a", log=SampleLog(tmp_path / "samples.db"))
    telemetry.bind("lea_a", [LeasedSlice(devices.inventory()[0].uuid, "whole", "h200", 1_000)], now_ms=0)
    telemetry.release("lea_a", now_ms=20)

    assert rows(tmp_path, "at_ms, lease_id, leased_gpu_us") == [(0, "lea_a", 0), (20, "lea_a", 20_000)]


def test_samples_older_than_48_hours_are_forgotten(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(0), slice_sample(1)], [DeviceSample(uuid="GPU-1", at_ms=0)], now_ms=1)
    log.append([], [], now_ms=sample_log.RETENTION_MS + 1)
    assert (rows(tmp_path, "at_ms"), rows(tmp_path, "at_ms", "device_samples")) == ([(1,)], [])


def test_rows_are_bounded_and_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_log, "ROWS_MAX", 4)
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(at_ms) for at_ms in range(9)], [], now_ms=8)
    assert rows(tmp_path, "at_ms") == [(7,), (8,)]


def test_file_that_is_no_database_is_set_aside_and_a_new_log_begun(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    path.write_bytes(b"not a database at all, only some bytes" * 100)
    log = SampleLog(path)
    log.append([slice_sample(1)], [], now_ms=1)
    assert rows(tmp_path, "at_ms") == [(1,)]
    assert (tmp_path / "samples.db.broken").exists()


def test_folder_that_is_missing_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SampleLogError, match="nowhere"):
        SampleLog(tmp_path / "nowhere" / "samples.db")


def test_failed_append_writes_nothing_and_says_so(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    with pytest.raises(SampleLogError, match=r"samples\.db"):
        log.append([slice_sample(1), slice_sample(2, lease_id=None)], [], now_ms=2)  # type: ignore[arg-type]
    assert rows(tmp_path, "at_ms") == []
