"""What of the user's could run before the entrypoint does: whoever's code ran first answers for a cluster that does not come up.

Owns: the three ways in: installed requirements, variables that steer the loader, Python or Ray, and modules of the working directory
that Ray would take for others. Does not own: the verdict (verdict.py). An ordinary job has none of them, and a start that fails is the
platform's then. Asked before Ray starts, because afterwards the evidence is in users' hands. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# Names by which a program of ours can be made to load something, or to hang.
STEERING_NAMES = frozenset({"PATH", "HOME", "ENV", "BASH_ENV", "SHELLOPTS", "TMPDIR", "LOCPATH", "NLSPATH", "GETCONF_DIR", "HOSTALIASES"})
STEERING_PREFIXES = ("PYTHON", "LD_", "RAY_", "GRPC_", "GLIBC_", "GCONV_", "MALLOC_", "OPENSSL_", "SSL_", "CUDA_", "NVIDIA_", "XDG_")
# Modules that Ray or what it stands on asks for and goes on without: absent in the job environment, so a file of the user's would be taken.
OPTIONAL_MODULES = frozenset({
    "IPython", "aiodns", "agate", "bcrypt", "brotli", "brotlicffi", "cchardet", "certifi", "chardet", "compression", "cupy",
    "dask", "debugpy", "faulthandler", "fsspec", "gevent", "greenlet", "h2", "httptools", "idna_ssl", "ipdb", "ipykernel", "jax",
    "memray", "msgspec", "nacl", "ntlm_auth", "numba", "opencensus", "opentelemetry", "orjson", "pandas", "pyarrow", "py4j",
    "pyspark", "pydevd", "pygments", "pynvml", "pyopenssl", "pytest", "py_spy", "pyximport", "regex", "rich", "sentry_sdk",
    "simplejson", "sitecustomize", "socks", "sockshandler", "tensorflow", "torch", "tornado", "tqdm", "trio", "ujson",
    "usercustomize", "uvloop", "wandb", "watchdog", "winloop", "zstandard",
})  # fmt: skip


def users_part(env: Mapping[str, str], *, has_requirements: bool, work_dir: Path, job_python: Path) -> str | None:
    """Return the first way in that the job uses, in words for a person; None when only our own code runs before the entrypoint."""
    if has_requirements:
        return "its own requirements"
    if (name := steering(env)) is not None:
        return f"its own variable {name}"
    if (name := _shadowing(os.listdir(work_dir), job_python)) is not None:
        return f"its own module {name}"
    return None


def steering(env: Iterable[str]) -> str | None:
    """Return the first of the variables that could steer what runs before the entrypoint."""
    return next((name for name in sorted(env) if name in STEERING_NAMES or name.startswith(STEERING_PREFIXES)), None)


def _shadowing(names: Iterable[str], job_python: Path) -> str | None:
    """Return a file or folder of the working directory that Python would take for a module of its own or of the job environment.

    Some of Ray's processes are started with -m, which puts the working directory first.
    """
    modules = {*sys.stdlib_module_names, *OPTIONAL_MODULES}
    packages = job_python.parent.parent / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    with contextlib.suppress(OSError):  # an interpreter that is arranged otherwise
        modules |= {module for name in os.listdir(packages) if (module := _module(name)) is not None}
    return next((name for name in sorted(names) if _module(name) in modules), None)


def _module(name: str) -> str | None:
    """Return the module that a file or folder of this name would be, None for what is none."""
    module, _, ending = name.partition(".")
    is_module = module.isidentifier() and not module.startswith("__") and (ending == "" or ending.endswith(("py", "pyc", "so")))
    return module if is_module else None
