"""What a pod asks for, and which flavors it may get: Kubernetes' rules for requests, selectors, affinity and taints.

Owns: the request of a pod (containers, init containers, sidecars, overhead, limits that stand for requests) and the match of a pod
with the labels and taints of a flavor. Does not own how many pods there are or what quota covers (kueue_workloads.py,
kueue_jobs.py). Like Kueue, the match looks only at label keys that some flavor of the resource group has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scheduler.sim.kueue_documents import Fields
from scheduler.sim.kueue_objects import Flavor, Taint, Toleration, tolerations

_EFFECTS = ("NoSchedule", "NoExecute")  # PreferNoSchedule keeps nobody away


@dataclass(frozen=True, slots=True)
class Expression:
    """One requirement on a node label."""

    key: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a pod demands of its node. `terms` are alternatives, each a list of requirements that hold together; empty demands nothing."""

    selector: Mapping[str, str]
    terms: tuple[tuple[Expression, ...], ...]
    tolerations: tuple[Toleration, ...]


def requests(pod: Fields) -> dict[str, Fraction]:
    """Return what one pod asks for by resource, as the scheduler of Kubernetes counts it."""
    running: dict[str, Fraction] = {}
    for container in pod.items("containers"):
        running = _sum(running, _asked(container))
    sidecars: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in pod.items("initContainers"):
        asked = _asked(container)
        if container.text("restartPolicy") == "Always":
            sidecars = _sum(sidecars, asked)
            asked = {}
        # An init container runs beside the sidecars that were started before it.
        peak = _larger(peak, _sum(sidecars, asked))
    total = _larger(_sum(running, sidecars), peak)
    total |= _asked(pod)  # what is asked for the pod as a whole stands for the sum of its containers
    return _sum(total, pod.quantities("overhead"))


def demands(pod: Fields) -> Demands:
    """Return what a pod demands of its node; preferences decide nothing."""
    required = pod.mapping("affinity").mapping("nodeAffinity").mapping("requiredDuringSchedulingIgnoredDuringExecution")
    terms = tuple(
        tuple(
            Expression(at.text("key") or "", at.text("operator") or "", tuple(at.texts("values"))) for at in term.items("matchExpressions")
        )
        for term in required.items("nodeSelectorTerms")
    )
    return Demands(pod.labels("nodeSelector"), terms, tolerations(pod))


def matches(wanted: Demands, flavor: Flavor, flavors: Sequence[Flavor]) -> bool:
    """Tell whether a pod may get `flavor`, one of the `flavors` of its resource group."""
    keys = {key for each in flavors for key in each.labels}
    if any(flavor.labels.get(key) != value for key, value in wanted.selector.items() if key in keys):
        return False
    terms = [[expression for expression in term if expression.key in keys] for term in wanted.terms]
    # A term about other labels only is empty here: it may hold on some node of every flavor, and one term is enough.
    if terms and not any(all(_holds(expression, flavor.labels) for expression in term) for term in terms):
        return False
    tolerated = (*wanted.tolerations, *flavor.tolerations)
    taints = [taint for taint in flavor.taints if taint.effect in _EFFECTS]
    return all(any(_tolerates(each, taint) for each in tolerated) for taint in taints)


def _asked(fields: Fields) -> dict[str, Fraction]:
    resources = fields.mapping("resources")
    return {**resources.quantities("limits"), **resources.quantities("requests")}


def _sum(left: Mapping[str, Fraction], right: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {name: left.get(name, Fraction(0)) + right.get(name, Fraction(0)) for name in (*left, *right)}


def _larger(left: Mapping[str, Fraction], right: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {name: max(left.get(name, Fraction(0)), right.get(name, Fraction(0))) for name in (*left, *right)}


def _holds(wanted: Expression, labels: Mapping[str, str]) -> bool:
    found = labels.get(wanted.key)
    if wanted.operator == "In":
        return found in wanted.values
    if wanted.operator == "NotIn":
        return found not in wanted.values
    if wanted.operator == "Exists":
        return found is not None
    if wanted.operator == "DoesNotExist":
        return found is None
    if found is None or len(wanted.values) != 1 or not _is_number(found) or not _is_number(wanted.values[0]):
        return False
    if wanted.operator == "Gt":
        return int(found) > int(wanted.values[0])
    return wanted.operator == "Lt" and int(found) < int(wanted.values[0])


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value
