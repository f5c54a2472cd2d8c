"""What a tenant may read of a reason: numbers and its own things, never the names of another tenant's jobs or reservations.

Owns what is taken out. Scenario files are read by operators and show everything; the live service and estimates answer tenants, so their
reasons go through here before they are written or sent. Names of maintenance windows are the operator's and stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from domain.reasons import Reason, ReasonCode
from scheduler.decision.snapshot import Snapshot

_NAMES_OTHERS = (ReasonCode.WAITING_FOR_PREEMPTED, ReasonCode.CAPACITY_RESERVED)


class Disclosure:
    """The owners of one snapshot's running jobs and reservations; looked up once, used for every class."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._reserved_by = {item.name: self._tenant_of(item.tenant) for item in snapshot.capacity_reservations}
        self._owners: Mapping[str, str] | None = None

    def of(self, reason: Reason, leaf: str) -> Reason:
        """Return `reason` as the tenant of the quota leaf may read it."""
        if reason.code not in _NAMES_OTHERS:
            return reason
        tenant, data = self._tenant_of(leaf), dict(reason.data)
        if "victims" in data:
            victims = data["victims"]
            names = [name for name in victims if isinstance(name, str)] if isinstance(victims, list) else []
            own = [name for name in names if self._owner_of(name) == tenant]
            data |= {"victims": own, "victims_of_others": len(names) - len(own)}
        name = data.get("capacity_reservation")
        if name is not None and self._reserved_by.get(str(name)) != tenant:
            data["capacity_reservation"] = None
        return replace(reason, data=data)

    def _owner_of(self, job: str) -> str | None:
        if self._owners is None:
            self._owners = {running.job: self._tenant_of(running.tenant) for running in self._snapshot.running}
        return self._owners.get(job)

    def _tenant_of(self, leaf: str) -> str:
        return self._snapshot.tree.tenant_of(leaf) if leaf in self._snapshot.tree else leaf
