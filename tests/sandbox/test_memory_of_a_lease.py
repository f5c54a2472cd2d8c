"""How a lease's memory is counted: whatever users' code does to have it in another column, and each shared page once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from terrace.runtime import members
from tests.sandbox.conftest import Leases
from tests.support import leases

MIB = 1024 * 1024
SIZE = 64 * MIB
TAKES = """
import mmap, os, sys, tempfile
kind, processes = sys.argv[1], int(sys.argv[2])
if kind == "of a file":
    file = tempfile.TemporaryFile()
    file.write(bytes({size}))
    memory = mmap.mmap(file.fileno(), {size})
else:
    memory = mmap.mmap(-1, {size}, flags=mmap.MAP_SHARED if kind != "its own" else mmap.MAP_PRIVATE)
def touch():
    for offset in range(0, {size}, 4096):
        memory[offset] = 1
for _ in range(processes - 1):
    if os.fork() == 0:
        break
touch()
os.write(1, b"x")
sys.stdin.read()
""".replace("{size}", str(SIZE))


@contextmanager
def taking(kind: str, processes: int) -> Iterator[None]:
    """Let so many processes of ours touch one piece of memory of that kind."""
    child = subprocess.Popen([sys.executable, "-c", TAKES, kind, str(processes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        for _ in range(processes):
            child.stdout.read(1)
        yield
        child.stdin.close()


@pytest.mark.parametrize(
    ("kind", "processes", "parts"),
    [
        pytest.param("its own", 1, 1, id="its own"),
        pytest.param("shared", 1, 1, id="shared with nobody"),
        pytest.param("shared", 3, 1, id="shared by three, counted once"),
        pytest.param("of a file", 1, 0, id="a mapped file of a disk"),
    ],
)
def test_memory_is_counted_where_it_is(kind: str, processes: int, parts: int) -> None:
    before = members.memory_bytes(limit=0)
    with taking(kind, processes):
        used = members.memory_bytes(limit=0) - before

    assert parts * SIZE <= used < (parts + 0.9) * SIZE


def test_what_no_process_has_mapped_counts_as_well() -> None:
    assert members.memory_bytes(limit=0, shm_bytes=1 << 40) >= 1 << 40


@pytest.mark.parametrize(
    ("size_mib", "processes", "before"),
    [
        pytest.param(1_900, 1, "", id="shared with nobody"),
        pytest.param(650, 3, "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)", id="by processes that let nobody look"),
    ],
)
def test_job_whose_memory_is_shared_is_over_its_limit_too(size_mib: int, processes: int, before: str, plain_leases: Leases) -> None:
    program = f"""
import mmap, os, signal
{before}
memory = mmap.mmap(-1, {size_mib * MIB})
for _ in range({processes - 1}):
    if os.fork() == 0:
        break
for offset in range(0, {size_mib * MIB}, 4096):
    memory[offset] = 1
signal.pause()
"""
    spec = leases.lease(entrypoint=("python", "-c", program), memory_bytes=64 * MIB, limit_ms=20_000)

    end = plain_leases.start(spec).to_the_end(seconds=60)

    assert (end["failure_class"], end["message"].split(" used ")[0]) == ("out_of_memory", "the lease")
