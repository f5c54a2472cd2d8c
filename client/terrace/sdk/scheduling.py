"""What an operator sets for the scheduler: cohorts, rules, imports, capacity reservations, maintenance and the policy.

Owns one method per verb. Fields that are left out stay as they are; None is a value (no cohort above, no cap, the default), so a method
that could mean either takes `KEEP`. What may be done, the service decides. Amounts are milli-GPU, milli-CPU or bytes by resource.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Final, Literal

from terrace.models.fleet import QuotaAnswer, QuotaSet
from terrace.models.scheduling import (
    CohortAnswer,
    CohortCreate,
    CohortSet,
    MaintenanceAnswer,
    MaintenanceCreate,
    Manifest,
    PolicyAnswer,
    PolicySet,
    QuotaImport,
    QuotaImportAnswer,
    QuotaNodeAnswer,
    QuotaTreeAnswer,
    Repeat,
    ReservationAnswer,
    ReservationCreate,
    RulesAnswer,
    RulesSet,
)
from terrace.sdk.transport import Transport, path_of

GPU_RESOURCE = "nvidia.com/gpu"


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP  # leave this field as it is


class SchedulingVerbs:
    """Mixed into `Client`. Every method raises ApiError when refused and UnreachableError when not answered."""

    _wire: Transport

    def cohorts(self) -> list[CohortAnswer]:
        """Return all cohorts."""
        return list(self._wire.items("/v1/cohorts", CohortAnswer))

    def create_cohort(self, name: str, *, parent: str | None = None, weight_milli: int = 1_000) -> CohortAnswer:
        """Make a cohort, below another one or as a root."""
        return self._wire.create("/v1/cohorts", CohortCreate(name=name, parent=parent, weight_milli=weight_milli), CohortAnswer)

    def set_cohort(
        self, name: str, *, parent: str | Literal[Keep.KEEP] | None = KEEP, weight_milli: int | Literal[Keep.KEEP] = KEEP
    ) -> CohortAnswer:
        """Move a cohort with all below it (None: make it a root), or change its weight."""
        body = CohortSet.model_validate(_kept(parent=parent, weight_milli=weight_milli))
        return self._wire.act("PATCH", path_of("v1", "cohorts", name), CohortAnswer, body)

    def delete_cohort(self, name: str) -> CohortAnswer:
        """Take an empty cohort away."""
        return self._wire.act("DELETE", path_of("v1", "cohorts", name), CohortAnswer)

    def set_cohort_quota(
        self,
        cohort: str,
        resource: str,
        *,
        nominal: int,
        borrowing_limit: int | None = None,
        lending_limit: int | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
    ) -> QuotaAnswer:
        """Set what a cohort owns, for all below it: from now on, or in a span of time."""
        body = QuotaSet(
            resource=resource,
            nominal=nominal,
            borrowing_limit=borrowing_limit,
            lending_limit=lending_limit,
            valid_from=valid_from,
            valid_until=valid_until,
        )
        return self._wire.act("PUT", path_of("v1", "cohorts", cohort, "quota"), QuotaAnswer, body)

    def quota_tree(self) -> QuotaTreeAnswer:
        """Return the quota tree as it stands: rules, quotas in force, what is held, and shares."""
        return self._wire.get("/v1/quota-tree", QuotaTreeAnswer)

    def quota_node(self, name: str, *, project: str | None = None, is_cohort: bool = False) -> QuotaNodeAnswer:
        """Return one node of the tree: a tenant, a project of it, or a cohort."""
        if is_cohort:
            return self._wire.get(path_of("v1", "cohorts", name), QuotaNodeAnswer)
        return self._wire.get(path_of("v1", "quotas", name, *(() if project is None else ("projects", project))), QuotaNodeAnswer)

    def set_rules(self, tenant: str, *, project: str | None = None, **rules: object) -> RulesAnswer:
        """Change rules of a tenant or project: the fields of `terrace.models.scheduling.RulesSet`."""
        path = path_of("v1", "quotas", tenant, *(() if project is None else ("projects", project)), "rules")
        return self._wire.act("PATCH", path, RulesAnswer, RulesSet.model_validate(rules))

    def import_quotas(
        self,
        manifests: Mapping[str, str],
        *,
        models: Mapping[str, str] | None = None,
        gpu_resource: str = GPU_RESOURCE,
        is_dry_run: bool = False,
    ) -> QuotaImportAnswer:
        """Make the quotas that Kueue's manifests (texts by file name) describe, all or nothing; or only say what would change."""
        files = [Manifest(name=name, text=text) for name, text in manifests.items()]
        body = QuotaImport(manifests=files, models=dict(models or {}), gpu_resource=gpu_resource, is_dry_run=is_dry_run)
        return self._wire.act("POST", "/v1/quota-imports", QuotaImportAnswer, body)

    def reservations(self, *, tenant: str | None = None, is_past_shown: bool = False) -> list[ReservationAnswer]:
        """Return capacity reservations: the own tenant's, for operators everybody's; those that are over or cancelled too."""
        past = "true" if is_past_shown else None
        return list(self._wire.items("/v1/reservations", ReservationAnswer, tenant=tenant, past=past))

    def reservation(self, name: str) -> ReservationAnswer:
        """Return a capacity reservation by its name, with what its tenant did not use of it."""
        return self._wire.get(path_of("v1", "reservations", name), ReservationAnswer)

    def create_reservation(
        self, name: str, *, tenant: str, flavor: str, gpus: int, start: datetime, end: datetime, repeat: Repeat | None = None
    ) -> ReservationAnswer:
        """Set whole devices aside for a tenant in a window, which may recur."""
        body = ReservationCreate(name=name, tenant=tenant, flavor=flavor, gpus=gpus, start=start, end=end, repeat=repeat)
        return self._wire.create("/v1/reservations", body, ReservationAnswer)

    def cancel_reservation(self, name: str) -> ReservationAnswer:
        """Cancel a capacity reservation; doing it again changes nothing."""
        return self._wire.act("DELETE", path_of("v1", "reservations", name), ReservationAnswer)

    def maintenance(self, *, is_past_shown: bool = False) -> list[MaintenanceAnswer]:
        """Return maintenance windows; those that are over or cancelled too."""
        return list(self._wire.items("/v1/maintenance", MaintenanceAnswer, past="true" if is_past_shown else None))

    def create_maintenance(
        self, name: str, *, nodes: Sequence[str], start: datetime, end: datetime, repeat: Repeat | None = None
    ) -> MaintenanceAnswer:
        """Keep nodes free in a window, which may recur."""
        body = MaintenanceCreate(name=name, nodes=list(nodes), start=start, end=end, repeat=repeat)
        return self._wire.create("/v1/maintenance", body, MaintenanceAnswer)

    def cancel_maintenance(self, name: str) -> MaintenanceAnswer:
        """Cancel a maintenance window; doing it again changes nothing."""
        return self._wire.act("DELETE", path_of("v1", "maintenance", name), MaintenanceAnswer)

    def policy(self) -> PolicyAnswer:
        """Return the scheduling policy in force."""
        return self._wire.get("/v1/policy", PolicyAnswer)

    def set_policy(self, **fields: object) -> PolicyAnswer:
        """Change fields of the policy (`terrace.models.scheduling.PolicySet`); None gives one back its default."""
        return self._wire.act("PATCH", "/v1/policy", PolicyAnswer, PolicySet.model_validate(fields))


def _kept(**fields: object) -> dict[str, object]:
    """Return the fields that are to change."""
    return {name: value for name, value in fields.items() if value is not KEEP}
