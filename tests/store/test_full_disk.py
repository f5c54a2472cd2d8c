"""A disk that is really full: every change is refused or kept, and the store goes on when there is room again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("full_disk_program.py")
REPOSITORY = Path(__file__).parents[2]
SMALL = "size=6m"
MOUNT_AND_RUN = 'mount -t tmpfs -o "$1" small "$2" && exec "$3" "$4" "$2"'


def in_own_mounts(*command: str) -> list[str]:
    """Return `command` in a mount namespace of its own, where an ordinary user may mount too."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--propagation=private", *command]


def test_full_disk_refuses_keeps_what_it_acknowledged_and_passes(tmp_path: Path) -> None:
    if subprocess.run(in_own_mounts("true"), capture_output=True, check=False).returncode != 0:
        pytest.skip("this kernel gives no mount namespaces to this user")
    command = in_own_mounts("sh", "-c", MOUNT_AND_RUN, "sh", SMALL, str(tmp_path), sys.executable, str(PROGRAM))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    seen = json.loads(done.stdout)
    assert seen.pop("told") > 50
    assert seen == {"is_kept": True, "code": "database_unavailable", "again": "after", "integrity": [["ok"]]}
