"""The packages that a job asks for, on top of the job environment, in a folder of the lease.

Owns: which lines of a requirements file are accepted, the overlay environment, and how pip is called. Does not own: the job
environment. Runs as the lease's user, among the lease's files, but where the network still is. So nothing of a package may run there: pip
installs wheels only, and never sees the user's file, because its options could name other indexes, files of the machine, the operator's
variables, or sources to build. And no address of the user's choice is asked from here, where the machine's own network answers: wheels come
from the index, from hosts that an operator named, or from the working directory, and one of the latter may not send pip elsewhere either.
Standard library only.
"""

from __future__ import annotations

import email
import re
import subprocess
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

OUTPUT_CHARACTERS_MAX = 2_000
SHOWN_CHARACTERS_MAX = 100
METADATA_NAME = ".dist-info/METADATA"
METADATA_FILES_MAX, METADATA_BYTES_MAX = 1, 1024 * 1024

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?: ?\[[A-Za-z0-9._, -]*\])?"
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>) ?[A-Za-z0-9.*+!_-]+"
_VERSIONS = rf" ?\(?(?: ?{_VERSION} ?(?:, ?{_VERSION} ?)*)?\)?"
_WHEEL_ADDRESS = r" ?@ ?https://(?P<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/[^ $?#\\]+\.whl(?:\?[^ $#]*)?(?:#[^ $]*)?"
_WHEEL_FILE = r"(?:\./)?(?:[A-Za-z0-9_+-][A-Za-z0-9._+-]*/)*[A-Za-z0-9_+-][A-Za-z0-9._+-]*\.whl"
_MARKER = r"""(?: ?; ?(?:(?! -)[A-Za-z0-9_.'"<>=!~() ,+-])+)?"""
_HASHES = r"(?: --hash=sha(?:256|384|512):[0-9a-f]+)*"
_REQUIREMENT = re.compile(rf"(?:(?P<file>{_WHEEL_FILE})|{_NAME}(?:{_WHEEL_ADDRESS}|{_VERSIONS})){_MARKER}{_HASHES}")
# A file of that name beside pip would be taken for the package; pip is called where there is none, and this is the second lock.
_ARCHIVE_NAME = re.compile(r"[^ \[;@<>=!~(]*\.(?:zip|tar|tgz|tbz|txz|tlz|tar\.\w+)(?:[ \[;@<>=!~(].*)?", re.IGNORECASE)


class RequirementsError(Exception):
    """The requirements are refused or cannot be installed; the message holds the line or the end of pip's output."""


def accepted(text: str, *, working_dir: Path, wheel_hosts: Sequence[str] = ()) -> list[str]:
    """Return the requirements in a requirements file, one each; RequirementsError names the first line that is anything else.

    Wheels in the working directory are named by their address, so that it does not matter where pip is called. `wheel_hosts` are the hosts
    from which a wheel may come by address, each as `host` or `host:port`.
    """
    found = []
    hosts = {host.lower() for host in wheel_hosts}
    for number, line in enumerate(re.sub(r"\\\r?\n", " ", text).splitlines(), start=1):
        requirement = " ".join(re.sub(r"(^|\s)#.*$", "", line).split())
        if not requirement:
            continue
        parts = _REQUIREMENT.fullmatch(requirement)
        if parts is None or _ARCHIVE_NAME.fullmatch(requirement):
            raise RequirementsError(
                f"requirements: line {number}: {requirement[:SHOWN_CHARACTERS_MAX]!r}: only packages by name and version, and wheels by "
                "https address or by path in the working directory, are accepted; no options, sources or other files"
            )
        if parts["host"] is not None and parts["host"].lower() not in hosts:
            allowed = ", ".join(sorted(hosts)) or "none"
            raise RequirementsError(
                f"requirements: line {number}: {parts['host'][:SHOWN_CHARACTERS_MAX]} is not among the hosts from which wheels may come by "
                f"address (wheel_hosts: {allowed}): take the package from the index, or put the wheel into the working directory"
            )
        wheel = parts["file"]
        if wheel:
            _refuse_detours(working_dir / wheel)
        found.append((working_dir / wheel).as_uri() + requirement.removeprefix(wheel) if wheel else requirement)
    return found


def install(
    requirements: Path, target: Path, *, job_python: str, ray_version: str, timeout_ms: int, wheel_hosts: Sequence[str] = ()
) -> None:
    """Make the environment `target`, which sees the job environment's packages, and install into it, in `timeout_ms` all together.

    Ray stays at the job environment's version: the cluster that runs the job is made of it.
    """
    deadline = time.monotonic() + timeout_ms / 1_000
    wanted = accepted(requirements.read_text(), working_dir=Path.cwd(), wheel_hosts=wheel_hosts)
    _call([job_python, "-m", "venv", "--without-pip", str(target)], deadline)
    query = "import sysconfig; print(sysconfig.get_paths()['purelib']); print(sysconfig.get_paths()['platlib'])"
    below = dict.fromkeys(_call([job_python, "-I", "-c", query], deadline).split())
    python = str(target / "bin/python")
    [packages] = dict.fromkeys(_call([python, "-I", "-c", query.split(";")[0] + "; " + query.split(";")[1]], deadline).split())
    # The .pth line comes after the overlay's own folder, so what the job installs wins over what is below.
    (Path(packages) / "job_environment.pth").write_text("\n".join(below) + "\n")
    constraints, checked = target / "constraints.txt", target / "requirements.txt"
    constraints.write_text(f"ray=={ray_version}\n")
    checked.write_text("".join(f"{requirement}\n" for requirement in wanted))
    pip = [
        job_python,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ]
    _call([*pip, "--constraint", str(constraints), "--requirement", str(checked)], deadline, folder=target)


def _refuse_detours(wheel: Path) -> None:
    """Refuse a wheel of the user's that depends on something by its address: pip would go and get it."""
    try:
        with zipfile.ZipFile(wheel) as file:
            names = [name for name in file.namelist() if name.endswith(METADATA_NAME)]
            texts = [file.open(name).read(METADATA_BYTES_MAX + 1) for name in names[:METADATA_FILES_MAX]]
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, zlib.error):
        return  # pip says it better
    if len(names) > METADATA_FILES_MAX or any(len(text) > METADATA_BYTES_MAX for text in texts):
        raise RequirementsError(f"requirements: {wheel.name}: has more than {METADATA_FILES_MAX} METADATA of {METADATA_BYTES_MAX} bytes")
    for text in texts:
        needs = email.message_from_bytes(text).get_all("Requires-Dist", [])
        detour = next((str(need) for need in needs if "@" in str(need).partition(";")[0]), None)
        if detour is not None:
            shown = detour[:SHOWN_CHARACTERS_MAX]
            raise RequirementsError(f"requirements: {wheel.name}: depends on {shown!r}: a package by its address, which is not accepted")


def _call(command: list[str], deadline: float, *, folder: Path | None = None) -> str:
    seconds = max(0.0, deadline - time.monotonic())
    nothing, together = subprocess.DEVNULL, subprocess.STDOUT
    try:
        done = subprocess.run(command, cwd=folder, stdin=nothing, stdout=subprocess.PIPE, stderr=together, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise RequirementsError("requirements: not installed within requirements_timeout_ms") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RequirementsError(f"requirements: pip failed: {output[-OUTPUT_CHARACTERS_MAX:].strip()}")
    return output
