"""From a specification to a process: the lease's directory, the files that tell it what to do, and the first command.

Owns: the layout `leases/<lease_id>/{work,checkpoint,tmp,home,logs,boot.json,runner.json}`, the choice of the lease's user id, which
folders are covered and shown, the environment. Does not own: the steps inside (enter.py), the runner (terrace.runtime) or
watching the process (supervise.py, the only caller).
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
from typing import Any

from agents.sandbox import enter, machine, mounts, procfs
from agents.sandbox.spec import Isolation, LeaseAlreadyStartedError, LeaseSpec, SandboxError, SandboxHandle, SandboxSettings

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("work", "checkpoint", "tmp", "home", "logs")
LEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# Of the agent's environment only these reach a lease; the rest may hold keys and database addresses.
PASSED_ON = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
# While requirements are installed pip also needs to know where packages are.
PASSED_ON_TO_PIP = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")
CHECKPOINT_ENTRIES_MAX = 1_000_000

_uid_lock = threading.Lock()
# The kernel's parent-death signal follows the thread that forked. This one lives as long as the process, whoever calls.
_spawner = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-spawner")


@dataclasses.dataclass(frozen=True, slots=True)
class Launched:
    """The process, the agent's end of the socket and the handle."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    handle: SandboxHandle


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
        _give_away(lease_dir, boot["checkpoint_dir"], uid)
        if isolation is Isolation.NONE:
            os.chown(temp_dir, uid, uid if is_root else -1)
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
    for uid in range(settings.lease_uid_base, settings.lease_uid_base + settings.lease_uid_count):
        if uid not in taken and not procfs.owned_by(uid):
            return uid
    raise SandboxError(f"lease_uid_count: all {settings.lease_uid_count} user ids for leases are in use")


def _boot(
    spec: LeaseSpec, settings: SandboxSettings, job: machine.JobEnvironment, isolation: Isolation, lease_dir: Path, uid: int
) -> dict[str, Any]:
    """Return what enter.py needs to know."""
    checkpoint = Path(spec.checkpoint_dir) if spec.checkpoint_dir else lease_dir / "checkpoint"
    programs = {job.prefix, job.base_prefix, job.terrace_folder or job.prefix, str(PACKAGE_ROOT / "agents")}
    own = {str(lease_dir), str(checkpoint)}
    closed = mounts.closed_ancestors([*programs, *own], uid) if os.geteuid() == 0 else []
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
        "closed": closed,
        "covers": [
            *({"path": path} for path in sorted({*closed, *hidden})),
            {"path": "/tmp", "source": str(lease_dir / "tmp")},  # noqa: S108  # the lease's own
            *({"path": path, "source": os.devnull} for path in spec.hidden_device_paths),
            {"path": "/dev/shm", "options": f"mode=1777,size={shared_memory_bytes}"},  # noqa: S108
        ],
        "exposures": [
            *({"path": path, "is_read_only": True} for path in sorted(programs)),
            *({"path": path, "is_read_only": False} for path in sorted(own)),
        ],
        "archive_path": str(lease_dir / "archive.tar.gz") if spec.archive_path else None,
        "requirements_path": str(lease_dir / "requirements.txt") if spec.requirements_path else None,
        "requirements_timeout_ms": settings.requirements_timeout_ms,
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
    Path(boot["checkpoint_dir"]).mkdir(mode=0o700, parents=True, exist_ok=True)
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
    }
    for name, values in (("boot.json", boot), ("runner.json", runner)):
        with open(os.open(lease_dir / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(values, file)


def _give_away(lease_dir: Path, checkpoint_dir: str, uid: int) -> None:
    """Give the lease's files to its user. Bounded, and never through a link."""
    if os.geteuid() != 0:
        return
    for root in {str(lease_dir), checkpoint_dir}:
        os.chown(root, uid, uid)
        entries = 0
        for _folder, folders, files, descriptor in os.fwalk(root):
            for name in (*folders, *files):
                os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
                entries += 1
                if entries > CHECKPOINT_ENTRIES_MAX:
                    raise SandboxError(f"checkpoint_dir: holds more than {CHECKPOINT_ENTRIES_MAX} entries")


def _refuse_closed_folders(boot: dict[str, Any], uid: int) -> None:
    if boot["closed"]:
        raise SandboxError(
            f"isolation: without namespaces users' code runs as user {uid}, which may not pass through {', '.join(boot['closed'])}: "
            "open these folders to it (o+x), move the job environment and the state directory elsewhere, or do not run as root"
        )


def _first_command(boot: dict[str, Any], boot_path: str, descriptor: int) -> list[str]:
    if not boot["is_root"]:
        return ["setpriv", "--pdeathsig=KILL", "--no-new-privs", *enter.again(boot, "prepare", boot_path, descriptor)]
    if boot["isolation"] == Isolation.NAMESPACES:
        closed = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private")
        return [*closed, *enter.again(boot, "mounts", boot_path, descriptor)]
    identity = ("setpriv", f"--reuid={boot['uid']}", f"--regid={boot['uid']}", "--clear-groups", "--pdeathsig=KILL", "--no-new-privs")
    return [*identity, "--inh-caps=-all", *enter.again(boot, "prepare", boot_path, descriptor)]


def _spawn(spec: LeaseSpec, boot: dict[str, Any], temp_dir: Path) -> Launched:
    lease_dir = Path(boot["lease_dir"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    names = [name for name in os.environ if name in {*PASSED_ON, *PASSED_ON_TO_PIP} or name.startswith("PIP_")]
    environment = {**boot["environment"], **{name: os.environ[name] for name in names}}
    with theirs, (lease_dir / "logs/sandbox.log").open("ab") as log:
        os.chown(log.fileno(), boot["uid"], -1)
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
    )
    return Launched(process, ours, handle)
