"""Where a job may run: its wishes for sites, labels, taints and closeness, checked against the nodes that are registered.

Owns the refusals of places that contradict themselves or that no node offers. A registered node counts whatever its state, because it
comes back; a fleet without nodes refuses nothing. A taint that no node has may be tolerated: it changes nothing. Does not own sizes
(submission.py) or whether a place is free now (the scheduler).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from api.refusing import Refusing, some
from scheduler.decision.where import ANYWHERE, Where
from scheduler.decision.where import Within as Closeness
from store.catalog import FleetCatalog, NodeKind, NodeMaxima, maxima_of
from terrace.models.jobs import JobSpec, Within

FIELDS = ("sites", "deny_sites", "prefer_sites", "node_labels", "tolerates", "within")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job may run. `kinds` None: anywhere."""

    sites: tuple[str, ...]
    where: Where
    kinds: tuple[NodeKind, ...] | None

    def maxima(self, gpu_model: str | None, fleet: FleetCatalog, refusing: Refusing) -> NodeMaxima | None:
        """Return the largest of the nodes that the job may run on, None where there are no nodes of the model yet."""
        of_fleet = fleet.maxima.get(gpu_model)
        if self.kinds is None or of_fleet is None:
            return of_fleet
        found = maxima_of(self.kinds, gpu_model)
        if found is None:
            field = next(name for name, asked in self._asked() if asked)
            what = f"node with {gpu_model}" if gpu_model is not None else "node"
            refusing.refuse(
                "no_such_place", field, f"no {what} is where the job may run, with its labels and only taints that it tolerates"
            )
        return found

    def _asked(self) -> Iterable[tuple[str, object]]:
        """Yield what narrows the job to fewer nodes, and last what does not."""
        where = self.where
        yield from (("sites", self.sites), ("node_labels", where.labels), ("deny_sites", where.denied_sites), ("tolerates", True))


NO_WISHES = Place((), ANYWHERE, None)


def place_of(spec: JobSpec, fleet: FleetCatalog, refusing: Refusing) -> Place:
    """Return where a job may run; InvalidError names the wish that cannot be."""
    if spec.model_fields_set.isdisjoint(FIELDS):
        return NO_WISHES
    _check_sense(spec, refusing)
    _check_known(spec, fleet, refusing)
    where = Where(
        labels=tuple(sorted(spec.node_labels.items())),
        tolerates=tuple(sorted(set(spec.tolerates))),
        denied_sites=tuple(sorted(set(spec.deny_sites))),
        preferred_sites=tuple(dict.fromkeys(spec.prefer_sites)),
        within=Closeness(spec.within.value),
    )
    sites = tuple(sorted(set(spec.sites)))
    if not (sites or where.denied_sites or where.labels or where.tolerates):
        return Place(sites, where, None)  # a field that was sent empty asks for no more than one that was not sent
    return Place(sites, where, tuple(kind for kind in fleet.kinds if _accepts(kind, sites, where)))


def _accepts(kind: NodeKind, sites: tuple[str, ...], where: Where) -> bool:
    if sites and kind.site not in sites:
        return False
    return kind.site not in where.denied_sites and kind.labels.items() >= set(where.labels) and kind.taints <= set(where.tolerates)


def _check_sense(spec: JobSpec, refusing: Refusing) -> None:
    allowed, denied = set(spec.sites), set(spec.deny_sites)
    for position, site in enumerate(spec.deny_sites):
        if site in allowed:
            refusing.refuse("contradictory_place", f"deny_sites[{position}]", f"{site!r} stands in sites too")
    for position, site in enumerate(spec.prefer_sites):
        if site in denied or (allowed and site not in allowed):
            refusing.refuse("contradictory_place", f"prefer_sites[{position}]", f"the job may not run on {site!r}")
    if spec.within is Within.ISLAND and spec.gpus == 0:
        refusing.refuse("contradictory_place", "within", "an island is of GPUs, and the job asks for none")


def _check_known(spec: JobSpec, fleet: FleetCatalog, refusing: Refusing) -> None:
    """Refuse names that no node has: they are typing errors, and a denied site with one would be allowed."""
    if not fleet.kinds:
        return
    known = {kind.site for kind in fleet.kinds}
    for field in ("sites", "deny_sites", "prefer_sites"):
        for position, site in enumerate(getattr(spec, field)):
            if site not in known:
                refusing.refuse("unknown_site", f"{field}[{position}]", f"no node is on a site {site!r}", some(known))
    for name, value in sorted(spec.node_labels.items()):
        values = {kind.labels[name] for kind in fleet.kinds if name in kind.labels}
        if value not in values:
            refusing.refuse("unknown_label", f"node_labels.{name}", f"no node carries {name}={value}", some(values))
