"""The agent's record: what it keeps, for how long, and how it behaves when the disk does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents import sample_log
from agents.devices import DeviceSample
from agents.sample_log import SampleLog, SampleLogError, SliceSample


def slice_sample(at_ms: int, lease_id: str = "lea_a", leased_gpu_us: int = 0) -> SliceSample:
    return SliceSample(at_ms, lease_id, "GPU-1", "whole", True, leased_gpu_us, None, 7, None)


def test_samples_come_back_as_they_went_in_oldest_first(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(1)], [DeviceSample(uuid="GPU-1", at_ms=1)], now_ms=1)
    log.append([slice_sample(2), slice_sample(3)], [], now_ms=3)
    assert log.slices_between(1, 3) == (slice_sample(2), slice_sample(3))
    assert log.row_count() == 4


def test_last_totals_are_the_newest_of_the_lease_after_reopening(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(1, leased_gpu_us=10), slice_sample(2, leased_gpu_us=20), slice_sample(3, "lea_b")], [], now_ms=3)
    log.close()
    remembered = SampleLog(tmp_path / "samples.db").last_totals("lea_a")
    assert {key: total.leased_gpu_us for key, total in remembered.items()} == {("GPU-1", "whole"): 20}


def test_samples_older_than_48_hours_are_forgotten(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(0), slice_sample(1)], [DeviceSample(uuid="GPU-1", at_ms=0)], now_ms=1)
    log.append([], [], now_ms=sample_log.RETENTION_MS + 1)
    assert log.slices_between(-1, sample_log.RETENTION_MS) == (slice_sample(1),)
    assert log.row_count() == 1


def test_rows_are_bounded_and_the_oldest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_log, "ROWS_MAX", 4)
    log = SampleLog(tmp_path / "samples.db")
    log.append([slice_sample(at_ms) for at_ms in range(9)], [], now_ms=8)
    assert [sample.at_ms for sample in log.slices_between(-1, 8)] == [7, 8]


def test_file_that_is_no_database_is_set_aside_and_a_new_log_begun(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    path.write_bytes(b"not a database at all, only some bytes" * 100)
    log = SampleLog(path)
    log.append([slice_sample(1)], [], now_ms=1)
    assert log.row_count() == 1
    assert (tmp_path / "samples.db.broken").exists()


def test_folder_that_is_missing_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SampleLogError, match="nowhere"):
        SampleLog(tmp_path / "nowhere" / "samples.db")


def test_failed_append_writes_nothing_and_says_so(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "samples.db")
    with pytest.raises(SampleLogError, match=r"samples\.db"):
        log.append([slice_sample(1), slice_sample(2, lease_id=None)], [], now_ms=2)  # type: ignore[arg-type]
    assert log.row_count() == 0
