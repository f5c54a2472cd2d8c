from __future__ import annotations

import stat
from pathlib import Path

import pytest

from terraced import preflight


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", [None, "terrace.db"], ids=["empty", "ours before"])
def test_open_directory_is_closed_to_others(tmp_path: Path, name: str | None) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    if name is not None:
        (state / name).touch()

    preflight.prepare_state_dir(state)

    assert mode_of(state) == 0o700


def test_open_directory_with_other_things_in_it_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    tmp_path.chmod(0o755)

    with pytest.raises(preflight.NotReadyError, match=r"state_dir: .* is open to other users \(mode 0755\)"):
        preflight.prepare_state_dir(tmp_path)

    assert mode_of(tmp_path) == 0o755


def test_new_directory_is_private(tmp_path: Path) -> None:
    preflight.prepare_state_dir(tmp_path / "a" / "state")

    assert mode_of(tmp_path / "a" / "state") == 0o700
