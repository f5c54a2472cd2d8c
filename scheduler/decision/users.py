"""Users: how much each person holds of a tenant's or project's GPUs, and the cap on it.

Owns the count in milli-GPU over all models, of running jobs, starts and nominations. Does not own quotas: a cap takes from nobody and
lends to nobody. Jobs without a user are not counted and not capped. A job that was told to leave counts until it is gone.
"""

from __future__ import annotations

from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from quotas.tree import Tree
from scheduler.decision.snapshot import ClassKey, Snapshot


class Users:
    """What users hold, by quota leaf and by every node above it that belongs to the tenant."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._tree = snapshot.tree
        self._held: dict[tuple[str, str], int] = {}
        for running in snapshot.running:
            if running.user is not None and running.tenant in self._tree:
                self.add(running.tenant, running.user, running.shape.milli_gpu)

    def add(self, leaf: str, user: str | None, milli_gpu: int) -> None:
        """Count a start or a nomination."""
        if user is None:
            return
        for name in self._tree.tenant_path(leaf):
            self._held[name, user] = self._held.get((name, user), 0) + milli_gpu

    def held(self, leaf: str, user: str | None) -> int:
        """Return what a user holds at a leaf."""
        return 0 if user is None else self._held.get((leaf, user), 0)

    def over_cap(self, key: ClassKey) -> Reason | None:
        """Refuse what a user may not hold now, beside what the tenant's other users hold."""
        if key.user is None or not key.shape.milli_gpu:
            return None
        for name in self._tree.tenant_path(key.tenant):
            cap = self._tree.node(name).user_cap
            held = self._held.get((name, key.user), 0)
            if cap is not None and held + key.shape.milli_gpu > cap:
                return _reason(key, name, cap, held)
        return None


def exceeds_cap(tree: Tree, key: ClassKey) -> Reason | None:
    """Refuse what a user could never hold."""
    if key.user is None:
        return None
    for name in tree.tenant_path(key.tenant):
        cap = tree.node(name).user_cap
        if cap is not None and key.shape.milli_gpu > cap:
            data: dict[str, ReasonValue] = {
                "limit": "user_cap",
                "user": key.user,
                "needed_milli_gpu": key.shape.milli_gpu,
                "maximum_milli_gpu": int(cap),
            }
            return Reason(ReasonCode.EXCEEDS_MAXIMUM, data, Unblock.MORE_QUOTA)
    return None


def _reason(key: ClassKey, node: str, cap: int, held: int) -> Reason:
    data: dict[str, ReasonValue] = {
        "user": key.user,
        "tenant": node,
        "needed_milli_gpu": key.shape.milli_gpu,
        "used_milli_gpu": held,
        "cap_milli_gpu": cap,
    }
    return Reason(ReasonCode.USER_CAP, data, Unblock.OWN_JOB_ENDS)
