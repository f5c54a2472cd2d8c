"""Real databases for tests: a PostgreSQL server started here, and migrated databases cheap enough for every test to have its own.

The server's programs come from PATH, from the system's packages, or from the `pgserver` package, in that order. It listens on a unix socket
in a directory of its own and nowhere else, runs as an ordinary user when the tests run as root, and dies with the tests. The shared server
gives up durability for speed; a test that kills a server or one of its processes starts a durable one of its own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.support.waiting import wait_until

ORDINARY_USERS = ("postgres", "nobody")  # the first that exists runs the server when the tests run as root
SYSTEM_PROGRAMS = "/usr/lib/postgresql/*/bin"
START_SECONDS_MAXIMUM = 60
STOP_SECONDS_MAXIMUM = 60
PR_SET_PDEATHSIG = 1
STRATEGIES_SINCE = 150_000
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MINIMUM = 1 << 30
FAST = ("fsync=off", "full_page_writes=off", "max_connections=200", "max_wal_size=160MB")
DURABLE = ("fsync=on", "synchronous_commit=on", "max_connections=50")


class NoServerError(Exception):
    """No PostgreSQL server can be started here; the message says why."""


def programs() -> Path:
    """Return the folder of `postgres` and `initdb`; NoServerError when there is none."""
    found = shutil.which("initdb")
    packaged = sorted(Path("/").glob(SYSTEM_PROGRAMS.lstrip("/")), key=lambda folder: int(folder.parent.name.split(".")[0]), reverse=True)
    carried = importlib.util.find_spec("pgserver")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += packaged
    if carried is not None and carried.origin is not None:
        candidates.append(Path(carried.origin).parent / "pginstall" / "bin")
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoServerError(f"initdb and postgres are neither on PATH nor in {SYSTEM_PROGRAMS} nor in the package pgserver")


def _ordinary_user() -> dict[str, Any]:
    """Return how to start a process of the server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ORDINARY_USERS:
        if name in known:
            return {"user": known[name].pw_uid, "group": known[name].pw_gid, "extra_groups": []}
    raise NoServerError(f"PostgreSQL does not run as root, and none of the users {', '.join(ORDINARY_USERS)} exists")


def _die_with_the_tests() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


@dataclass
class PostgresServer:
    """A server in `folder`, reached through a unix socket there. May be killed and started again."""

    folder: Path
    programs: Path
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    _identity: dict[str, Any] = field(default_factory=_ordinary_user)

    def initialise(self) -> None:
        """Make an empty cluster; NoServerError with what initdb said when it cannot."""
        if self._identity:
            os.chown(self.folder, self._identity["user"], self._identity["group"])
        self.programs = self._reachable_programs()
        command = [str(self.programs / "initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        made = subprocess.run([*command, f"--pgdata={self._data}"], capture_output=True, text=True, check=False, cwd="/", **self._identity)
        if made.returncode != 0:
            raise NoServerError(f"{self.programs}/initdb failed: {made.stderr.strip()}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _reachable_programs(self) -> Path:
        """Return the programs, copied beside the data where the ordinary user may not read them where they are."""
        probe = [str(self.programs / "postgres"), "--version"]
        try:
            if subprocess.run(probe, capture_output=True, check=False, cwd="/", **self._identity).returncode == 0:
                return self.programs
        except PermissionError:
            pass
        copied = self.folder / "pgserver"
        shutil.copytree(self.programs.parents[1], copied, symlinks=True)
        libraries = self.programs.parents[2] / "pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, self.folder / "pgserver.libs", symlinks=True)
        return copied / "pginstall" / "bin"

    def start(self) -> None:
        """Start and wait until the server answers; NoServerError with its log when it does not."""
        command = [str(self.programs / "postgres"), "-D", str(self._data), "-k", str(self.folder), "-h", ""]
        settings = [part for option in self.options for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_the_tests,
                **self._identity,
            )
        wait_until(self._is_answering, seconds=START_SECONDS_MAXIMUM)

    def _is_answering(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise NoServerError(f"the server ended: {(self.folder / 'log').read_text(errors='replace')[-2_000:]}")
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """Return the address of a database, as `Store.open` and `--database-url` take it."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside any transaction and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database and return its address."""
        ((version,),) = self.execute("SHOW server_version_num")
        by_files = " STRATEGY file_copy" if int(version) >= STRATEGIES_SINCE else ""  # a quarter of the work
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{by_files}')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database and end whoever is still connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def backends(self, database: str) -> list[int]:
        """Return the process identifiers of the sessions on a database, those of the caller not included."""
        statement = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' ORDER BY pid"  # noqa: S608  a name made by the tests
        return [int(row[0]) for row in self.execute(statement)]

    def crash(self) -> None:
        """End the server without any goodbye, as a power cut of its processes would; `start` recovers."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End every session and shut down."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS_MAXIMUM)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _folder_in_memory() -> Path | None:
    """Return where files are kept in memory, None where there is no room for a small cluster; many small databases are slow on a disk."""
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if is_there and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MINIMUM else None


@contextmanager
def running_server(options: tuple[str, ...] = DURABLE) -> Iterator[PostgresServer]:
    """Start a server on an empty cluster; stop it and remove everything afterwards. One that is not durable lives in memory."""
    parent = None if options == DURABLE else _folder_in_memory()
    with tempfile.TemporaryDirectory(prefix="terrace-pg-", dir=parent, ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), programs(), options)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.crash()  # nobody needs its data any more
