"""Compiles the NVML stub with the machine's C compiler, and loads it the way the driver's library is found.

`preload` uses the dynamic loader's own rule: a library whose soname is already loaded answers every later request for
that name. So pynvml, unchanged, finds the stub inside a running test. `environment` is for processes yet to start.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_stub.c")
SONAME = "libnvidia-ml.so.1"
COMPILE_SECONDS_MAX = 60


def compile_stub(folder: Path, *, is_partial: bool = False) -> Path:
    """Build the library in `folder` and return its path. Without a compiler: skip, but fail where CI is set."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        reason = "no C compiler (cc, gcc or clang) to build the NVML stub"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    library = folder / SONAME
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}"]
    partial = ["-DPARTIAL_DRIVER"] if is_partial else []
    command = [compiler, *options, *partial, "-o", str(library), str(SOURCE)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX, check=False)
    assert finished.returncode == 0, finished.stderr
    return library


def preload(library: Path) -> ctypes.CDLL:
    """Load the library into this process under its soname."""
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def environment(library: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process that finds this library as the driver's."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library.parent), **more}
