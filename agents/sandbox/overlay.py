"""The packages that a job asks for, on top of the job environment, in a folder of the lease.

Owns: the overlay environment and how pip is called. Does not own: the job environment. Runs as the lease's user before the lease is
entered, where the network still is; wheels only, so that nothing of a package runs there. Standard library only.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

OUTPUT_CHARACTERS_MAX = 2_000
VENV_SECONDS_MAX = 60


class RequirementsError(Exception):
    """The requirements cannot be installed; the message holds the end of pip's output."""


def install(requirements: Path, target: Path, *, job_python: str, ray_version: str, timeout_ms: int) -> None:
    """Make the environment `target`, which sees the job environment's packages, and install into it.

    Ray stays at the job environment's version: the cluster that runs the job is made of it.
    """
    _call([job_python, "-m", "venv", "--without-pip", str(target)], VENV_SECONDS_MAX)
    query = "import sysconfig; print(sysconfig.get_paths()['purelib']); print(sysconfig.get_paths()['platlib'])"
    below = dict.fromkeys(_call([job_python, "-I", "-c", query], VENV_SECONDS_MAX).split())
    python = str(target / "bin/python")
    [packages] = dict.fromkeys(_call([python, "-I", "-c", query.split(";")[0] + "; " + query.split(";")[1]], VENV_SECONDS_MAX).split())
    # The .pth line comes after the overlay's own folder, so what the job installs wins over what is below.
    (Path(packages) / "job_environment.pth").write_text("\n".join(below) + "\n")
    constraints = target / "constraints.txt"
    constraints.write_text(f"ray=={ray_version}\n")
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
    _call([*pip, "--constraint", str(constraints), "--requirement", str(requirements)], timeout_ms / 1000)


def _call(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RequirementsError(f"requirements: not installed after {seconds:.0f} s") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RequirementsError(f"requirements: pip failed: {output[-OUTPUT_CHARACTERS_MAX:].strip()}")
    return output
