"""How a lease's process tree is followed, and that its CPU time never decreases."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import processes
from agents.processes import ProcessRow, ProcessTable, ProcessTree

PROCESS_SECONDS_MAX = 30
BURN_IN_A_CHILD = """
import os, time
child = os.fork()
if child == 0:
    while time.process_time() < 0.2:
        pass
    os._exit(0)
os.waitpid(child, 0)
print("burned", flush=True)
input()
"""


def table(*rows: tuple[int, int, int], zombies: tuple[int, ...] = (), started: int = 1) -> ProcessTable:
    """Return a table of (process id, parent id, CPU milliseconds), each with 10 bytes of memory."""
    return {pid: ProcessRow(pid, parent, started, cpu_ms, 10, pid in zombies) for pid, parent, cpu_ms in rows}


def tree_of(first: ProcessTable, root: int = 1) -> ProcessTree:
    tree = ProcessTree(first[root])
    tree.update(first)
    return tree


def test_tree_sums_its_members_and_leaves_out_strangers() -> None:
    first = table((1, 0, 100), (2, 1, 50), (3, 2, 25), (9, 0, 7_000))
    reading = ProcessTree(first[1]).update(first)
    assert (reading.cpu_time_ms, reading.memory_bytes, reading.process_ids) == (175, 30, (1, 2, 3))


def test_member_whose_parent_died_is_still_a_member() -> None:
    tree = tree_of(table((1, 0, 100), (2, 1, 50), (3, 2, 25)))
    assert tree.update(table((3, 0, 40))).process_ids == (3,)


def test_child_of_an_orphan_is_a_member() -> None:
    tree = tree_of(table((1, 0, 100), (2, 1, 50)))
    assert tree.update(table((2, 0, 50), (4, 2, 1))).process_ids == (2, 4)


def test_recycled_process_id_is_a_stranger() -> None:
    tree = tree_of(table((1, 0, 100)))
    assert tree.update(table((1, 0, 9_999), started=2)).process_ids == ()


def test_zombie_counts_its_time_but_is_not_alive() -> None:
    first = table((1, 0, 100), (2, 1, 50), zombies=(2,))
    reading = ProcessTree(first[1]).update(first)
    assert (reading.cpu_time_ms, reading.memory_bytes, reading.process_ids) == (150, 10, (1,))


def test_time_of_a_member_that_nobody_waited_for_is_not_taken_back() -> None:
    tree = tree_of(table((1, 0, 100), (2, 1, 50)))
    assert tree.update(table((1, 0, 110))).cpu_time_ms == 150
    assert tree.update(table((1, 0, 200))).cpu_time_ms == 200


@given(st.lists(st.dictionaries(st.integers(2, 6), st.tuples(st.integers(1, 6), st.integers(0, 500))), max_size=8))
def test_cpu_time_never_decreases(worlds: list[dict[int, tuple[int, int]]]) -> None:
    tree = tree_of(table((1, 0, 100)))
    times = [tree.update(table((1, 0, 100), *((pid, *row) for pid, row in world.items()))).cpu_time_ms for world in worlds]
    assert times == sorted(times)


def test_time_of_a_real_child_that_ended_is_counted_in_its_parent() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BURN_IN_A_CHILD], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burned\n"
        now = processes.read_table()
        reading = ProcessTree(now[process.pid]).update(now)
        process.communicate("\n", timeout=PROCESS_SECONDS_MAX)
    assert reading.cpu_time_ms >= 190
    assert reading.process_ids == (process.pid,)


def test_real_process_that_ended_is_gone_from_its_tree() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        tree = ProcessTree(processes.read_table()[process.pid])
        process.communicate("\n", timeout=PROCESS_SECONDS_MAX)
    assert tree.update(processes.read_table()).process_ids == ()


def test_members_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MEMBERS_MAX", 3)
    first = table(*((pid, pid - 1, 1) for pid in range(1, 20)))
    assert len(ProcessTree(first[1]).update(first).process_ids) == 3
