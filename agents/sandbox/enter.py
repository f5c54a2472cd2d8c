"""The way into a lease, step by step, each step replacing the one before in the same process (exec).

Owns: what happens between the agent's fork and the runner's first line: mounts, preparing the working directory and requirements as the
lease's user, entering the namespaces, giving up every capability. What a user sent is touched only where the mounts already hide everything
else. Does not own: what is covered or which programs are used (launch.py wrote that into boot.json). Standard library only, because it
runs with the job environment's bare interpreter. A failure is said on the agent's socket in the runner's own words.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from agents.sandbox import archive, mounts, overlay

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
MESSAGE_CHARACTERS_MAX = 4_000
OWN_USER = ("--user", "--map-current-user", "--keep-caps")
NAMESPACES = (
    *OWN_USER,
    "--mount",
    "--net",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--propagation=private",
)
NO_CAPABILITIES = ("--no-new-privs", "--ambient-caps=-all", "--inh-caps=-all", "--bounding-set=-all")


def main() -> None:
    """Do the step named by the arguments (step, boot.json, descriptor of the agent's socket) and become the next."""
    step, boot_path, descriptor = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.set_inheritable(descriptor, True)
    try:
        boot = json.loads(Path(boot_path).read_text())
        STEPS[step](boot, boot_path, descriptor)
    except archive.ArchiveRefusedError as error:
        _fail(descriptor, "environment", str(error))
    except overlay.RequirementsError as error:
        _fail(descriptor, "environment", str(error))
    except OSError as error:
        _fail(descriptor, "platform", f"sandbox step {step}: {error}")


def _mounts(boot: dict[str, Any], boot_path: str, descriptor: int) -> None:
    """With the right to mount, in a mount namespace of its own: arrange the files, then be the lease's user and nothing more."""
    covers = [mounts.Cover(**values) for values in boot["covers"]]
    exposures = [mounts.Exposure(**values) for values in boot["exposures"]]
    mounts.apply(covers, exposures)
    mounts.seal(covers, exposures)
    user = boot["uid"]
    identity = (f"--reuid={user}", f"--regid={user}", "--clear-groups") if boot["is_root"] else ("--ambient-caps=-all",)
    nothing_more = ("--pdeathsig=KILL", "--no-new-privs", "--inh-caps=-all")
    _become(["setpriv", *identity, *nothing_more, *again(boot, "prepare", boot_path, descriptor)])


def _prepare(boot: dict[str, Any], boot_path: str, descriptor: int) -> None:
    """As the lease's user, still with the machine's network: unpack the archive and install the requirements."""
    lease_dir = Path(boot["lease_dir"])
    os.chdir(lease_dir / "work")  # so that requirements may name a file of the working directory
    if boot["archive_path"]:
        archive.unpack(Path(boot["archive_path"]), lease_dir / "work")
        Path(boot["archive_path"]).unlink()  # it would take its room for as long as the lease runs
    if boot["requirements_path"]:
        overlay.install(
            Path(boot["requirements_path"]),
            lease_dir / "overlay",
            job_python=boot["job_python"],
            ray_version=boot["ray_version"],
            timeout_ms=boot["requirements_timeout_ms"],
            wheel_hosts=boot["wheel_hosts"],
        )
    if boot["isolation"] == "namespaces":
        _become(["unshare", *NAMESPACES, *again(boot, "enter", boot_path, descriptor)])
    # Not KILL: without a PID namespace only the runner can take its descendants along.
    _run(boot, descriptor, ["setpriv", "--pdeathsig=TERM", "--no-new-privs"])


def _enter(boot: dict[str, Any], boot_path: str, descriptor: int) -> None:
    """As the first process of the lease's namespaces: see its own processes and network only, then give up every capability."""
    mounts.mount("proc", "/proc", kind="proc", flags=mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
    bring_loopback_up()
    if boot["is_run_hidden"]:  # the machine's services listen there on sockets, which no network namespace keeps apart
        sealed = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_RDONLY
        mounts.mount("tmpfs", "/run", kind="tmpfs", flags=sealed, options=mounts.COVER_OPTIONS)
    # No namespaces inside the lease: they would give users' code the kernel's privileged paths to play with.
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _run(boot, descriptor, ["setpriv", *NO_CAPABILITIES])


STEPS = {"mounts": _mounts, "prepare": _prepare, "enter": _enter}


def again(boot: dict[str, Any], step: str, boot_path: str, descriptor: int) -> list[str]:
    """Return the command of another step. Isolated and without site: nothing but the standard library, this package and terrace.runtime."""
    folders = [boot["package_root"], boot["terrace_parent"]]
    program = f"import sys; sys.path.extend({folders!r}); from agents.sandbox import enter; enter.main()"
    return [*_bare_python(boot, program), step, boot_path, str(descriptor)]


def bring_loopback_up() -> None:
    """Set the namespace's own loopback interface up; it is the only interface there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def _bare_python(boot: dict[str, Any], program: str) -> list[str]:
    """Return the command of a program that loads nothing which a user's packages could have put in its way."""
    return [boot["job_python"], "-I", "-S", "-c", program]


def _run(boot: dict[str, Any], descriptor: int, prefix: list[str]) -> None:
    """Become the runner, with an environment that holds nothing of the agent's."""
    lease_dir = Path(boot["lease_dir"])
    os.chdir(lease_dir / "work")
    _limit(resource.RLIMIT_CORE, 0)
    if boot["isolation"] == "namespaces":  # counted per user namespace; without one it would count what else this user runs
        _limit(resource.RLIMIT_NPROC, boot["tasks_maximum"])
    folders = [str(lease_dir / "overlay/bin")] if (lease_dir / "overlay/bin/python").exists() else []
    path = ":".join([*folders, str(Path(boot["job_python"]).parent), boot["environment"]["PATH"]])
    program = f"import sys; sys.path.append({boot['terrace_parent']!r}); from terrace.runtime import runner; runner.main()"
    command = [*prefix, *_bare_python(boot, program), str(lease_dir / "runner.json"), str(descriptor)]
    os.execvpe(command[0], command, {**boot["environment"], "PATH": path})  # noqa: S606  # an argument list, no shell


def _limit(kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (value, value))


def _become(command: list[str]) -> None:
    os.execvp(command[0], command)  # noqa: S606  # an argument list, no shell


def _fail(descriptor: int, failure_class: str, message: str) -> None:
    end = {"exit_code": None, "failure_class": failure_class, "message": message[:MESSAGE_CHARACTERS_MAX]}
    line = {"kind": "exited", "was_stopped": False, **end}
    with socket.socket(fileno=descriptor) as channel:
        channel.sendall(json.dumps(line).encode() + b"\n")
    sys.exit(1)
