"""The first keys: an operator's for a service that has none, and a node's for the machine that embeds an agent.

Called by `terraced init` and `terraced up` before anything is served. A key file is readable by its owner only and is written before its
row, so a crash in between leaves a file that does not work and no key that nobody knows; the next start writes both anew.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api import auth, clock
from store.engine import Store
from store.identity import CreateFirstOperator, CreateNodeKey, HasOperator, Principal, PrincipalByKey

OPERATOR_NAME = "operator"
KEY_FILE_MODE = 0o600


def first_operator(store: Store, key_path: Path) -> bool:
    """Make the first operator and write its key to `key_path`; False, changing nothing, when an operator has a key that works already."""
    with _alone(key_path):
        if store.read_blocking(HasOperator(clock.now_ms())):
            return False
        secret = auth.new_secret()
        _write(key_path, secret.bearer)
        command = CreateFirstOperator(clock.new_id("usr"), OPERATOR_NAME, secret.key_id, secret.sha256, clock.now_ms())
        return store.run_blocking(command)


def node_key(store: Store, key_path: Path, *, node: str) -> bool:
    """Write a key for an existing node's agent to `key_path`; False when the file holds one that works already."""
    if key_path.exists() and _works(store, key_path.read_text().strip(), node):
        return False
    secret = auth.new_secret()
    _write(key_path, secret.bearer)
    store.run_blocking(CreateNodeKey(secret.key_id, clock.new_id("usr"), "agent", secret.sha256, node, None, clock.now_ms()))
    return True


@contextmanager
def _alone(key_path: Path) -> Iterator[None]:
    """Wait until no other process writes this file: replicas that share a state directory start together, and only one key works."""
    with key_path.with_name(f".{key_path.stem}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _works(store: Store, bearer: str, node: str) -> bool:
    key_id, _, secret = bearer.partition(".")
    principal: Principal | None = store.read_blocking(PrincipalByKey(key_id))
    return (
        principal is not None
        and not principal.is_disabled
        and principal.node == node
        and principal.expires_at_ms is None
        and principal.secret_sha256 == auth.digest(secret)
    )


def _write(path: Path, text: str) -> None:
    """Write a secret so that nobody else can ever read it, not even for a moment."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_FILE_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
