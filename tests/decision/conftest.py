"""The world of a decision test; a test that does not check it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.decision.world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    assert made.was_checked, "the test never decided: call check(), expect() or expect_waiting()"
