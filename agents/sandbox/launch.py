"""From a specification to a process: the lease's directory, the files that tell it what to do, and the first command.

Owns: the layout `leases/<lease_id>/{work,checkpoint,tmp,home,logs,boot.json,runner.json}`, the choice of the lease's user id, which
folders are covered and shown, the environment. Does not own: whose the files are (ownership.py), the steps inside (enter.py), the runner
(terrace.runtime) or watching the process (supervise.py, the only caller).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO

from agents.sandbox import enter, machine, mounts, ownership, procfs
from agents.sandbox.spec import Isolation, LeaseAlreadyStartedError, LeaseSpec, SandboxError, SandboxHandle, SandboxSettings

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
TEMPORARY_FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108  # inside a lease both are its own
FOLDERS = ("work", "checkpoint", "tmp", "home", "logs")
LEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# Of the agent's environment only these reach a lease; the rest may hold keys and database addresses.
PASSED_ON = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
# While requirements are installed pip also needs to know where packages are.
PASSED_ON_TO_PIP = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")

_uid_lock = threading.Lock()
# The kernel's parent-death signal follows the thread that forked. This one lives as long as the process, whoever calls.
_spawner = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-spawner")


@dataclasses.dataclass(frozen=True, slots=True)
class Launched:
    """The process, the agent's end of the socket, what the first steps write (opened before users' code could touch it), the handle."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    log: BinaryIO
    handle: SandboxHandle

    def close(self) -> None:
        """Let go of the socket and the log."""
        self.channel.close()
        self.log.close()


def leases_dir(settings: SandboxSettings) -> Path:
    """Return the folder that holds one directory per lease."""
    return settings.state_dir / "leases"


def launch(spec: LeaseSpec, settings: SandboxSettings) -> Launched:
    """Start the lease's first process. SandboxError when this machine cannot; nothing is left behind then."""
    _check(spec)
    is_root = os.geteuid() == 0
    environment = machine.job_environment(spec.job_python, str(settings.runtime_path) if settings.runtime_path else None)
    isolation = machine.isolation(settings.isolation, settings.lease_uid_base if is_root else None)
    lease_dir, uid = _make_lease_dir(spec, settings, is_root)
    temp_dir = Path("/tmp") if isolation is Isolation.NAMESPACES else Path(tempfile.mkdtemp(prefix="tl-"))  # noqa: S108  # the lease's own /tmp
    try:
        boot = _boot(spec, settings, environment, isolation, lease_dir, uid)
        _fill(spec, settings, boot, temp_dir)
        if is_root:
            ownership.give_files(lease_dir, uid)
            ownership.give_tree(Path(boot["checkpoint_dir"]), uid, lease_uids=settings.lease_uids)
        if isolation is Isolation.NONE:
            os.chown(temp_dir, uid, uid if is_root else -1)
            if is_root:
                _refuse_closed_folders(boot, uid)
        return _spawn(spec, boot, temp_dir)
    except BaseException:
        shutil.rmtree(lease_dir, ignore_errors=True)
        if isolation is Isolation.NONE:
            shutil.rmtree(temp_dir, ignore_errors=True)
        raise


def _check(spec: LeaseSpec) -> None:
    if not LEASE_ID.fullmatch(spec.lease_id):
        raise SandboxError("lease_id: letters, digits, '_', '.' and '-' only, at most 63, because it names a folder")
    if not spec.entrypoint:
        raise SandboxError("entrypoint: needs at least one argument")
    if len(spec.device_uuids) != len(spec.device_indices):
        raise SandboxError("device_uuids, device_indices: must name the same devices")


def _make_lease_dir(spec: LeaseSpec, settings: SandboxSettings, is_root: bool) -> tuple[Path, int]:
    """Make the lease's folders and return them with its user id: the agent's own, or by root the lowest that no lease here has."""
    folder = leases_dir(settings)
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    lease_dir = folder.resolve() / spec.lease_id
    with _uid_lock:
        uid = _free_uid(folder, settings) if is_root else os.geteuid()
        try:
            lease_dir.mkdir(mode=0o700)
        except FileExistsError as error:
            raise LeaseAlreadyStartedError(f"lease_id: {spec.lease_id} was started on this machine before") from error
        if is_root:
            os.chown(lease_dir, uid, uid)
    for name in FOLDERS:
        (lease_dir / name).mkdir(mode=0o700)
    return lease_dir, uid


def _free_uid(folder: Path, settings: SandboxSettings) -> int:
    taken = {entry.stat(follow_symlinks=False).st_uid for entry in os.scandir(folder)}
    for uid in settings.lease_uids:
        if uid not in taken and not procfs.owned_by(uid):
            return uid
    raise SandboxError(f"lease_uid_count: all {settings.lease_uid_count} user ids for leases are in use")


def _boot(
    spec: LeaseSpec, settings: SandboxSettings, job: machine.JobEnvironment, isolation: Isolation, lease_dir: Path, uid: int
) -> dict[str, Any]:
    """Return what enter.py needs to know. Makes the checkpoint directory, so that the ways to all folders can be looked at."""
    checkpoint = Path(spec.checkpoint_dir) if spec.checkpoint_dir else lease_dir / "checkpoint"
    checkpoint.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    checkpoint.mkdir(mode=0o700, exist_ok=True)
    programs = {job.prefix, job.base_prefix, job.terrace_folder, str(PACKAGE_ROOT / "agents")}
    if settings.runtime_path is not None:
        programs.add(str(settings.runtime_path))
    own = {str(lease_dir), str(checkpoint)}
    closed = []
    if os.geteuid() == 0:
        _refuse_closed_programs(programs, uid)
        closed = mounts.closed_ancestors([*programs, *own], uid)
    hidden = {str(settings.state_dir.resolve()), *map(str, settings.hidden_paths)}
    shared_memory_bytes = settings.object_store_bytes + spec.memory_bytes // 2
    return {
        "isolation": isolation,
        "is_root": os.geteuid() == 0,
        "uid": uid,
        "lease_dir": str(lease_dir),
        "checkpoint_dir": str(checkpoint),
        "job_python": spec.job_python,
        "ray_version": job.ray_version,
        "package_root": str(PACKAGE_ROOT),
        "terrace_parent": str(Path(job.terrace_folder).parent),
        "tasks_maximum": settings.tasks_maximum,
        "is_run_hidden": not any(Path(path).is_relative_to("/run") for path in {*programs, *own}),
        "covers": [
            *({"path": path} for path in sorted({*closed, *hidden})),
            *({"path": path, "source": str(lease_dir / "tmp"), "is_writable": True} for path in TEMPORARY_FOLDERS),
            *({"path": path, "source": os.devnull} for path in spec.hidden_device_paths),
            {"path": "/dev/shm", "options": f"mode=1777,size={shared_memory_bytes}", "is_writable": True},  # noqa: S108
        ],
        "exposures": [
            *({"path": path, "is_read_only": True} for path in sorted(programs)),
            *({"path": path, "is_read_only": False} for path in sorted(own)),
        ],
        "archive_path": str(lease_dir / "archive.tar.gz") if spec.archive_path else None,
        "requirements_path": str(lease_dir / "requirements.txt") if spec.requirements_path else None,
        "requirements_timeout_ms": settings.requirements_timeout_ms,
        "wheel_hosts": settings.wheel_hosts,
        "environment": _environment(spec, settings, lease_dir),
    }


def _environment(spec: LeaseSpec, settings: SandboxSettings, lease_dir: Path) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **({"PYTHONPATH": str(settings.runtime_path)} if settings.runtime_path else {}),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(lease_dir / "home"),
        "USER": "lease",
        "LOGNAME": "lease",
        "TERRACE_LEASE_ID": spec.lease_id,
    }


def _fill(spec: LeaseSpec, settings: SandboxSettings, boot: dict[str, Any], temp_dir: Path) -> None:
    """Write the lease's files."""
    lease_dir = Path(boot["lease_dir"])
    for source, target in ((spec.archive_path, boot["archive_path"]), (spec.requirements_path, boot["requirements_path"])):
        if source:
            shutil.copyfile(source, target)
    runner = {
        **dataclasses.asdict(spec),
        "isolation": boot["isolation"],
        "visible_devices": spec.visible_devices(),
        "lease_dir": boot["lease_dir"],
        "checkpoint_dir": boot["checkpoint_dir"],
        "temp_dir": str(temp_dir),
        "object_store_bytes": settings.object_store_bytes,
        "disk_bytes": settings.disk_bytes,
    }
    for name, values in (("boot.json", boot), ("runner.json", runner)):
        with open(os.open(lease_dir / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(values, file)


def _refuse_closed_programs(programs: set[str], uid: int) -> None:
    """A folder on the way can be uncovered for a lease, one that is itself closed to everybody cannot."""
    closed = sorted(path for path in programs if os.stat(path).st_mode & 0o005 != 0o005)
    if closed:
        raise SandboxError(f"job_python: users' code runs as user {uid}, which may not read {', '.join(closed)}: open it (o+rx)")


def _refuse_closed_folders(boot: dict[str, Any], uid: int) -> None:
    closed = sorted({folder for exposure in boot["exposures"] for folder in mounts.closed_on_the_way(exposure["path"], uid)})
    if closed:
        raise SandboxError(
            f"isolation: without namespaces users' code runs as user {uid}, which may not pass through {', '.join(closed)}: "
            "open these folders to it (o+x), move the job environment and the state directory elsewhere, or do not run as root"
        )


def _first_command(boot: dict[str, Any], boot_path: str, descriptor: int) -> list[str]:
    if boot["isolation"] == Isolation.NAMESPACES:
        user = () if boot["is_root"] else enter.OWN_USER
        unshare = ("setpriv", "--pdeathsig=KILL", "unshare", *user, "--mount", "--propagation=private")
        return [*unshare, *enter.again(boot, "mounts", boot_path, descriptor)]
    if not boot["is_root"]:
        return ["setpriv", "--pdeathsig=KILL", "--no-new-privs", *enter.again(boot, "prepare", boot_path, descriptor)]
    identity = ("setpriv", f"--reuid={boot['uid']}", f"--regid={boot['uid']}", "--clear-groups", "--pdeathsig=KILL", "--no-new-privs")
    return [*identity, "--inh-caps=-all", *enter.again(boot, "prepare", boot_path, descriptor)]


def _spawn(spec: LeaseSpec, boot: dict[str, Any], temp_dir: Path) -> Launched:
    lease_dir = Path(boot["lease_dir"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    names = [name for name in os.environ if name in {*PASSED_ON, *PASSED_ON_TO_PIP} or name.startswith("PIP_")]
    environment = {**boot["environment"], **{name: os.environ[name] for name in names}}
    # The name is the lease's to change, what we opened is not: its end is read from here.
    log = (lease_dir / "logs/sandbox.log").open("x+b")
    with theirs:
        command = _first_command(boot, str(lease_dir / "boot.json"), theirs.fileno())
        try:
            process = _spawner.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            ).result()
        except OSError as error:
            ours.close()
            log.close()
            raise SandboxError(f"sandbox: {command[0]} cannot be started: {error}") from error
    handle = SandboxHandle(
        lease_id=spec.lease_id,
        pid=process.pid,
        # A process that already died has no start time to remember; 0 matches no living process.
        pid_started_at_ticks=procfs.started_at_ticks(process.pid) or 0,
        isolation=boot["isolation"],
        lease_dir=str(lease_dir),
        boot_id=procfs.boot_id(),
        uid=boot["uid"],
        temp_dir=None if boot["isolation"] == Isolation.NAMESPACES else str(temp_dir),
        checkpoint_dir=boot["checkpoint_dir"],
    )
    return Launched(process, ours, log, handle)
