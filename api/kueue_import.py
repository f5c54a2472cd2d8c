"""From Kueue's manifests, as texts, to what the quotas of this installation should be.

Owns the way from the reader that `terraced scenario from-kueue` uses (scheduler/sim/kueue.py) to the store's wishes, and what it has to
leave out: everything that is no quota. Amounts go through the models of the scenario format, which hold them in our units exactly. It
neither reads nor writes rows. A ClusterQueue becomes the tenant of its name, a Cohort the cohort.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api import clock
from quotas.tree import BorrowPreempt, Quota
from scheduler.sim import kueue, kueue_tree
from scheduler.sim.kueue_documents import KueueError, Note
from scheduler.sim.scenario import CohortPart, TenantPart
from store.errors import InvalidError
from store.quota_import import WantedCohort, WantedQuota, WantedTenant
from terrace.models.common import NAME_PATTERN
from terrace.models.scheduling import WEIGHT_MILLI_MAXIMUM

WEIGHT_SCALE = 1_000
LEFT_OUT_MAXIMUM = 1_000  # lines of an answer
NODES_MAXIMUM = 500  # ClusterQueues and cohorts of one import: while it is written, nothing else can be on SQLite
_COHORT_PREFIX = "cohort:"  # of a cohort's name in a scenario where a ClusterQueue has the same name; here both may have it
_RENAMED = "in the scenario, because a ClusterQueue has that name"
_NO_QUOTAS = ("Workload ", "LocalQueue ", "WorkloadPriorityClass ", "PriorityClass ", "Configuration ")


@dataclass(frozen=True, slots=True)
class Read:
    """What the manifests want, and every field that has no counterpart."""

    cohorts: tuple[WantedCohort, ...]
    tenants: tuple[WantedTenant, ...]
    left_out: tuple[str, ...]


def read(texts: Mapping[str, str], models: Mapping[str, str], *, gpu_resource: str, is_fair: bool) -> Read:
    """Return what `texts` want; InvalidError for what Kubernetes would refuse. `models`: GPU models of flavors. `is_fair`: the policy."""
    notes: list[Note] = []
    try:
        found = kueue.manifests(texts, notes)
        tree = kueue_tree.build(found.cohorts, found.queues, found.flavors, gpu_resource=gpu_resource, notes=notes)
    except KueueError as error:
        raise _refused(str(error)) from error
    if len(tree.cohorts) + len(tree.tenants) > NODES_MAXIMUM:
        raise _refused(f"more than {NODES_MAXIMUM} ClusterQueues and cohorts; import them in parts", limit=NODES_MAXIMUM)
    resources = {model: models.get(flavor, flavor) for flavor, model in tree.models.items()}
    cohorts, tenants = [], []
    for entry in tree.cohorts:
        part = CohortPart.model_validate(entry)
        name, parent = _cohort_name(part.name), part.parent and _cohort_name(part.parent)
        wanted = _wanted(name, part.quota.by_resource(), resources)
        cohorts.append(WantedCohort(name, name in found.cohorts, parent, _weight(part, found.cohorts, notes), wanted))
    for entry in tree.tenants:
        tenant = TenantPart.model_validate(entry)
        name, parent = _checked(tenant.name), tenant.parent and _cohort_name(tenant.parent)
        wanted = _wanted(name, tenant.quota.by_resource(), resources)
        rules = _rules(tenant, is_fair=is_fair, source=found.queues[tenant.name].source, notes=notes)
        if "flavor_fungibility" in tenant.model_fields_set:
            fungibility = tenant.flavor_fungibility
            rules |= {"when_can_borrow": fungibility.when_can_borrow.value, "when_can_preempt": fungibility.when_can_preempt.value}
        weight = _weight(tenant, found.queues, notes)
        tenants.append(WantedTenant(clock.new_id("ten"), clock.new_id("prj"), name, parent, weight, rules, wanted))
    return Read(tuple(cohorts), tuple(tenants), _left_out(notes, found))


def _refused(message: str, **data: int) -> InvalidError:
    return InvalidError("manifest_refused", message, field="manifests", **data)


def _checked(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise _refused(f"{name!r} cannot be a name here: lower-case letters, digits and, inside, hyphens, 63 in all")
    return name


def _cohort_name(name: str) -> str:
    return _checked(name.removeprefix(_COHORT_PREFIX))


def _wanted(name: str, quotas: Mapping[str, Quota], resources: Mapping[str, str]) -> tuple[WantedQuota, ...]:
    found: dict[str, WantedQuota] = {}
    for resource, quota in quotas.items():
        known = resources.get(resource, resource)
        if known in found:
            raise InvalidError(
                "flavors_of_one_model", f"models: two flavors of {name!r} are {known}; a quota is by GPU model", field="models"
            )
        found[known] = WantedQuota(clock.new_id("quo"), known, quota.nominal, quota.borrowing_limit, quota.lending_limit)
    return tuple(found.values())


def _weight(part: CohortPart, described: Mapping[str, Any], notes: list[Note]) -> int:
    scaled = part.weight * WEIGHT_SCALE
    if scaled > WEIGHT_MILLI_MAXIMUM:
        message = f"{part.name.removeprefix(_COHORT_PREFIX)}: spec.fairSharing.weight is more than {WEIGHT_MILLI_MAXIMUM // WEIGHT_SCALE}"
        raise _refused(message, limit=WEIGHT_MILLI_MAXIMUM // WEIGHT_SCALE)
    if scaled.denominator != 1:
        source = described[part.name.removeprefix(_COHORT_PREFIX)].source
        reason = f"is finer than a thousandth: rounded down to {int(scaled) / WEIGHT_SCALE:g}"
        notes.append(Note(source, "spec.fairSharing.weight", reason))
    return int(scaled)


def _rules(tenant: TenantPart, *, is_fair: bool, source: Any, notes: list[Note]) -> dict[str, Any]:
    preemption = tenant.preemption
    borrowing = preemption.borrow_within_cohort
    if borrowing.policy is not BorrowPreempt.NEVER and is_fair:
        reason = "left out: it has no effect under fair sharing, which is on in the policy"
        notes.append(Note(source, "spec.preemption.borrowWithinCohort", reason))
        borrowing = type(borrowing)()
    return {
        "within_tenant": preemption.within_tenant.value,
        "reclaim_within_cohort": preemption.reclaim_within_cohort.value,
        "borrow_within_cohort": borrowing.policy.value,
        "borrow_max_priority": borrowing.max_priority,
    }


def _left_out(notes: Sequence[Note], found: kueue.Manifests) -> tuple[str, ...]:
    lines = [_in_our_words(str(note)) for note in notes if _is_of_quotas(note)]
    for kind, count in (
        ("Workload", len(found.workloads)),
        ("LocalQueue", len(found.local_queues)),
        ("priority class", len(found.classes)),
    ):
        if count:
            lines.append(f"{count} x {kind}: left out: only quotas are imported")
    if found.configuration is not None:
        state = "on" if found.configuration.fair_sharing else "off"
        lines.append(f"{found.configuration.source}: fair sharing is {state} there; the policy here is set by itself")
    return tuple(dict.fromkeys(lines))[:LEFT_OUT_MAXIMUM]


def _is_of_quotas(note: Note) -> bool:
    """Tell whether a note concerns quotas: not the nodes that a scenario makes up, nor jobs, nor names that only a scenario changes."""
    if note.source is None:
        return False
    return not note.source.title.startswith(_NO_QUOTAS) and _RENAMED not in note.reason


def _in_our_words(line: str) -> str:
    return line.replace("a scenario", "Terrace").replace("the scenario", "Terrace")
