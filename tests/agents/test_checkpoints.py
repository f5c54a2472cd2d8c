"""Checkpoint directories are kept for the next attempt and deleted long after the last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents import checkpoints
from agents.device_selection import DeviceSettings
from agents.settings import DAY_MS, AgentSettings

NOW_MS = 1_800_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    return AgentSettings(
        api_url="-", token="-", state_dir=tmp_path, job_python="-", devices=DeviceSettings(node_name="n"), checkpoints_kept_ms=DAY_MS
    )


def made(settings: AgentSettings, job_id: str, *, age_ms: int) -> Path:
    folder = checkpoints.directory(settings, job_id)
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/step").write_text("41")
    os.utime(folder, ((NOW_MS - age_ms) / 1_000,) * 2)
    return folder


def test_only_what_is_old_and_nobody_s_is_deleted(settings: AgentSettings) -> None:
    ages = {"job_old": DAY_MS + 1_000, "job_running": DAY_MS + 1_000, "job_young": DAY_MS - 1_000}
    folders = {job_id: made(settings, job_id, age_ms=age_ms) for job_id, age_ms in ages.items()}

    deleted = checkpoints.prune(settings, jobs={"job_running"}, now_ms=NOW_MS)

    assert (deleted, [job_id for job_id, folder in folders.items() if folder.exists()]) == (["job_old"], ["job_running", "job_young"])


def test_link_among_them_is_not_followed(settings: AgentSettings, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (settings.state_dir / "checkpoints").mkdir()
    (settings.state_dir / "checkpoints/link").symlink_to(kept)

    assert checkpoints.prune(settings, jobs=(), now_ms=NOW_MS + 1_000 * DAY_MS) == []
    assert kept.exists()


def test_node_without_checkpoints_has_nothing_to_delete(settings: AgentSettings) -> None:
    assert checkpoints.prune(settings, jobs=(), now_ms=NOW_MS) == []
