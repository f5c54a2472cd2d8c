"""A job environment whose Ray is plain_ray.py: the tests' own interpreter and a folder that shadows the rest."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.service import REPOSITORY

PYTHON = sys.executable


@contextmanager
def made(*, sin: str | None = None) -> Iterator[Path]:
    """Yield a folder for `runtime_path` that every user may read; `sin` is what its Ray does wrong (plain_ray.py)."""
    with tempfile.TemporaryDirectory(prefix="terrace-plain-") as folder:
        Path(folder).chmod(0o755)
        runtime = make(Path(folder).resolve())
        if sin is not None:
            (runtime / "ray/scripts/sin").write_text(sin)
        yield runtime


def make(folder: Path) -> Path:
    """Fill a folder for `runtime_path`: a `ray` of version 2.60.0, and the client of this checkout."""
    for package in ("ray", "ray/scripts"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    shutil.copyfile(Path(__file__).with_name("plain_ray.py"), folder / "ray/scripts/scripts.py")
    information = folder / "ray-2.60.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.60.0\n")
    shutil.copytree(REPOSITORY / "client/terrace", folder / "terrace", ignore=shutil.ignore_patterns("__pycache__"))
    return folder
