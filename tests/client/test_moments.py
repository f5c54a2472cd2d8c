"""Moments as they are typed: in the machine's time zone unless they say otherwise, or a duration away from now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from terrace.cli import moments
from terrace.cli.moments import Direction
from terrace.reasons import now_utc
from terrace.sdk.errors import InputError


@pytest.fixture
def _in_hanoi(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_hanoi")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01", datetime(2026, 10, 31, 17, tzinfo=UTC)),
        ("2026-11-01T10:00", datetime(2026, 11, 1, 3, tzinfo=UTC)),
        ("2026-11-01T10:00Z", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00:00.250+01:00", datetime(2026, 11, 1, 9, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_a_moment_is_local_unless_it_names_its_offset(text: str, moment: datetime) -> None:
    assert moments.read("from", text, Direction.BACK) == moment


@pytest.mark.parametrize(("direction", "sign"), [(Direction.BACK, -1), (Direction.AHEAD, 1)])
def test_a_duration_is_counted_from_now(direction: Direction, sign: int) -> None:
    before = now_utc()
    moment = moments.read("from", "7d", direction)
    assert moment is not None
    assert before + sign * timedelta(days=7) <= moment <= now_utc() + sign * timedelta(days=7)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "7", "99999999999999d"])
def test_anything_else_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InputError) as refused:
        moments.read("to", text, Direction.BACK)
    assert refused.value.field == "to"


def test_nothing_is_nothing() -> None:
    assert moments.read("to", None, Direction.BACK) is None
