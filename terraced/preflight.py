"""What `terraced up` checks before it changes anything: each refusal names the setting and what would make it work.

Called once at start. Raises `NotReadyError`; never repairs, never waits.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import IO

RAY_VERSION_SECONDS_MAXIMUM = 60
LOCK_FILE = "terraced.lock"
OUR_FILES = frozenset({LOCK_FILE, "terrace.db", "operator.key", "node.key", "archives", "agent"})
PRIVATE_MODE = 0o700
OTHERS = 0o077


class NotReadyError(Exception):
    """Something that the service needs is missing. `setting` names what to change."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}")
        self.setting = setting


def prepare_state_dir(state_dir: Path) -> None:
    """Create the state directory, private to its owner, and prove that files can be written in it.

    One that is there and open to others is closed when it is empty or was ours before; keys and users' code do not go into any other. A
    directory of another owner is a volume that somebody mounted: who may enter it is not ours to say.
    """
    try:
        state_dir.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
        _close_to_others(state_dir)
        probe = state_dir / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise NotReadyError("state_dir", f"{state_dir} cannot be written: {error.strerror}") from error


def _close_to_others(state_dir: Path) -> None:
    status = state_dir.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or not mode & OTHERS:
        return
    names = {path.name for path in state_dir.iterdir()}
    if names and not names & OUR_FILES:
        raise NotReadyError("state_dir", f"{state_dir} is open to other users (mode {mode:04o}); `chmod 700` it, or name another directory")
    state_dir.chmod(PRIVATE_MODE)


def node_key(path: Path) -> str:
    """Return the key of this machine's node."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise NotReadyError(
            "state_dir", f"{path}: {reason}; an operator makes this node's key: `terrace ops key create --node NAME`"
        ) from error
    if not key:
        raise NotReadyError("state_dir", f"{path} is empty; an operator makes this node's key: `terrace ops key create --node NAME`")
    return key


def lock_state_dir(state_dir: Path) -> IO[str]:
    """Take the state directory for this process; the lock falls when the returned file is closed, kill -9 included."""
    handle = (state_dir / LOCK_FILE).open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        handle.close()
        raise NotReadyError("state_dir", f"{state_dir} is in use by another `terraced up` (process {owner})") from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def check_port(setting: str, host: str, port: int) -> None:
    """Prove that `host:port` can be bound. Port 0 always can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            option = "--" + setting.replace("_", "-")
            raise NotReadyError(setting, f"{host}:{port} cannot be used: {error.strerror}; choose another with {option}") from error


def ray_version(job_python: Path) -> str:
    """Return the version of Ray in the job environment, read from its metadata without importing it."""
    program = "import importlib.metadata as m; print(m.version('ray')); m.version('terrace')"
    if not job_python.exists():
        raise NotReadyError("job_python", f"{job_python} does not exist; `make setup` builds a job environment")
    try:
        answer = subprocess.run(
            [str(job_python), "-c", program], capture_output=True, text=True, timeout=RAY_VERSION_SECONDS_MAXIMUM, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReadyError("job_python", f"{job_python} does not run: {error}") from error
    if answer.returncode != 0:
        lacking = "Ray" if not answer.stdout.strip() else "the terrace runtime"
        raise NotReadyError("job_python", f"{lacking} is missing from the job environment of {job_python}; `make setup` builds one")
    return answer.stdout.strip()
