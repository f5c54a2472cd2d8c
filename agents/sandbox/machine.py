"""What this machine and its job environment can do for leases: asked once each, remembered for the life of the process.

Owns: the probe for namespaces and the questions to the job environment's interpreter. Does not own: what is done with the answers
(launch.py). The node daemon asks at its start too, so that a missing Ray is said then and not at the first lease.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agents.sandbox.spec import Isolation, SandboxError

PROBE_SECONDS_MAX = 20
# What enter.py does, by programs instead of system calls: the two mounts that masked or locked-down machines refuse.
PROBE = (
    *("unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--propagation=private"),
    *("sh", "-c", "mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp && echo 0 > /proc/sys/user/max_user_namespaces"),
)
QUESTIONS = """
import importlib.metadata, importlib.util, json, sys
def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return None
spec = importlib.util.find_spec("terrace")
folder = next(iter(spec.submodule_search_locations), None) if spec and spec.submodule_search_locations else None
answers = {"prefix": sys.prefix, "base_prefix": sys.base_prefix, "version": sys.version_info[:2], "ray": version("ray"), "terrace": folder}
print(json.dumps(answers))
"""


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """The environment of users' code: its own folder and its interpreter's, Ray's version, the `terrace` package's folder."""

    python: str
    prefix: str
    base_prefix: str
    ray_version: str
    terrace_folder: str


@functools.cache
def namespaces_refusal(uid: int | None) -> str | None:
    """Return why this machine gives a lease no namespaces of its own, None when it does. `uid` is the lease's user when run by root."""
    own_user = ("--user", "--map-current-user", "--keep-caps") if uid is None else ()
    identity = ("--ambient-caps=-all",) if uid is None else (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    files = ("unshare", *own_user, "--mount", "--propagation=private", "setpriv", *identity)
    try:
        done = subprocess.run([*files, *PROBE], capture_output=True, timeout=PROBE_SECONDS_MAX, check=False)
    except FileNotFoundError as error:
        return f"{error.filename} (util-linux) is not installed"
    except subprocess.TimeoutExpired:
        return f"the probe did not end within {PROBE_SECONDS_MAX} s"
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or f"the probe ended with {done.returncode}"


def isolation(wanted: Isolation | None, uid: int | None) -> Isolation:
    """Return the isolation of leases on this machine; SandboxError when namespaces are demanded and cannot be had."""
    if wanted is Isolation.NONE:
        return Isolation.NONE
    refusal = namespaces_refusal(uid)
    if refusal is None:
        return Isolation.NAMESPACES
    if wanted is Isolation.NAMESPACES:
        raise SandboxError(f"isolation: namespaces are demanded, but this machine has none for us: {refusal}")
    return Isolation.NONE


def trust_needed(isolation: Isolation, *, is_asked_for: bool, is_root: bool, is_given: bool) -> str | None:
    """Return what must be said at the agent's start about leases without namespaces, None when there is nothing.

    SandboxError where users' code would run as the agent's own user, unless an operator asked for just that or the machine is one
    person's own (`is_given`): such a lease reads the node's key, and every other lease's files and token.
    """
    if isolation is Isolation.NAMESPACES:
        return None
    if is_root:
        return "isolation none: leases are kept apart by user ids only, and their Rays listen on every interface behind tokens"
    exposed = "jobs run as the agent's own user and can read its key, its state directory and one another's files and tokens"
    if not (is_asked_for or is_given):
        refusal = namespaces_refusal(None)
        raise SandboxError(
            f"isolation: this machine gives leases no namespaces ({refusal}), so {exposed}. Allow user namespaces, run the agent as root, "
            "or set isolation to none if everybody who may submit is trusted with this node"
        )
    return f"isolation none: {exposed}; their Rays listen on every interface behind tokens"


@functools.cache
def job_environment(python: str, runtime_path: str | None = None) -> JobEnvironment:
    """Ask the job environment what it holds; SandboxError when it is no Python >= 3.11 with Ray and the `terrace` package."""
    environment = {"PATH": os.defpath, **({"PYTHONPATH": runtime_path} if runtime_path else {})}
    try:
        done = subprocess.run([python, "-c", QUESTIONS], capture_output=True, env=environment, timeout=PROBE_SECONDS_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"job_python: {python} cannot be run: {error}") from error
    if done.returncode != 0:
        raise SandboxError(f"job_python: {python} does not answer: {done.stderr.decode(errors='replace')[-500:].strip()}")
    answers = json.loads(done.stdout)
    if tuple(answers["version"]) < (3, 11):
        raise SandboxError(f"job_python: {python} is older than Python 3.11")
    if answers["ray"] is None:
        raise SandboxError(f"job_python: Ray is missing from the job environment of {python}: install ray[default] there")
    if answers["terrace"] is None:
        raise SandboxError(f"job_python: the terrace package is missing from the job environment of {python}: install the client there")
    return JobEnvironment(
        python=python,
        prefix=answers["prefix"],
        base_prefix=answers["base_prefix"],
        ray_version=answers["ray"],
        terrace_folder=str(Path(answers["terrace"])),
    )
