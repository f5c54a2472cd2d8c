"""Single values of a scenario: what a number means in our units, exactly."""

from __future__ import annotations

import pytest

from scheduler.sim import reading
from tests.sim.scenarios import WORLD


def memory_bytes(gib: str) -> int:
    return reading.read(WORLD + f"jobs: [{{id: x, tenant: a, memory_gib: {gib}}}]").jobs[0].memory_bytes


@pytest.mark.parametrize("size_bytes", [1, 1023, 36 * 10**9, 123_456_789_012_345, 2**53 - 1])
def test_any_number_of_bytes_can_be_written_in_gib(size_bytes: int) -> None:
    assert memory_bytes(repr(size_bytes / 2**30)) == size_bytes


@pytest.mark.parametrize(("gib", "size_bytes"), [("0.5", 2**29), ("200", 200 * 2**30), ("0", 0), ("0.0", 0)])
def test_short_number_of_gib_is_exact(gib: str, size_bytes: int) -> None:
    assert memory_bytes(gib) == size_bytes


def test_highest_priority_class_of_a_cluster_can_be_said() -> None:
    assert reading.read(WORLD + "jobs: [{id: x, tenant: a, priority: 2000001000}]").jobs[0].priority == 2_000_001_000
