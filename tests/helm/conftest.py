"""The Helm engine for the tests of this folder.

Owns: building it once a session through deploy/tools, and saying why not where it cannot be built. Without a usable Go
toolchain these tests are skipped on a person's machine and fail in CI (`CI` set), where silence would look like success.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helm.rendering import Helm

ROOT = Path(__file__).resolve().parents[2]
NO_USABLE_GO = 3
BUILD_SECONDS_MAX = 1200


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The engine that deploy/tools pins, with a home of its own, so that nobody's plugins or repositories take part."""
    build = subprocess.run([ROOT / "deploy/tools/build.sh"], capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    if build.returncode == NO_USABLE_GO and not os.environ.get("CI"):
        pytest.skip(build.stderr.strip())
    assert build.returncode == 0, build.stderr
    return Helm(Path(build.stdout.strip()) / "helm", home=tmp_path_factory.mktemp("helm"))
