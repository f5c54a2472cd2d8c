"""Nodes for a converted scenario: Kueue has none, so they are made up, large enough that quota alone decides.

Owns how many GPUs, CPUs and how much memory they have, so that placement never refuses what quota allows. Does not own quotas or
jobs. Up to 256 GPUs are one node of exactly that size. Of larger nodes, a replica of r GPUs finds none of N with G only if each holds
more than G - r, so N x (G - r + 1) of at least all GPUs that can be held at once is enough; so is a node per replica. CPUs and
memory are on every node as much as all jobs together can hold. Example: 1000 GPUs and replicas of 8 are 5 nodes of 256.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from scheduler.sim import expansion, units
from scheduler.sim.kueue_documents import KueueError, Note
from scheduler.sim.kueue_jobs import Gang, Jobs
from scheduler.sim.kueue_tree import CPU, MEMORY, QuotaTree
from scheduler.sim.scenario import NODES_MAXIMUM

# A larger nominal quota says "unlimited" rather than how much there is; then the jobs say how much is needed.
NOMINAL_GPUS_MAXIMUM = 65_536


def build(tree: QuotaTree, jobs: Jobs, notes: list[Note]) -> list[dict[str, Any]]:
    """Return the section `nodes`."""
    gangs = [*jobs.running_gangs, *jobs.queued_gangs]
    cpus = _at_least(tree.nominal.get(CPU, 0), sum(gang.cpu * gang.replicas for gang in gangs), units.MILLI, units.CPUS_MAXIMUM)
    memory_asked = sum(gang.memory * gang.replicas for gang in gangs)
    memory = _at_least(tree.nominal.get(MEMORY, 0), memory_asked, units.GIB_BYTES, units.MEMORY_GIB_MAXIMUM)
    beside = {key: value for key, value in (("cpus", cpus), ("memory_gib", memory)) if value}
    above = _held_above_quota(tree, jobs)
    taken: set[str] = set()
    nodes: list[dict[str, Any]] = []
    for model in dict.fromkeys([*tree.models.values(), *(model for gang in gangs for model in gang.models)]):
        count, gpus = _size(model, tree.nominal.get(model, 0), above[model], [gang for gang in gangs if model in gang.models])
        if not count:
            continue
        name = model if not taken.intersection(expansion.names(model, count)) else f"node:{model}"
        taken.update(expansion.names(name, count))
        entry: dict[str, Any] = {"name": name} | ({"count": count} if count > 1 else {})
        nodes.append(entry | {"gpu_model": model, "gpus": gpus} | beside)
    if not nodes and beside:
        nodes.append({"name": "node", **beside})
    if nodes:
        notes.append(Note(None, "nodes", "made up, large enough for all quotas, because Kueue has no nodes; put in your own"))
    return nodes


def _held_above_quota(tree: QuotaTree, jobs: Jobs) -> Counter[str]:
    """Return by model what queues hold above their nominal quota: others may still start all that theirs allows."""
    held: Counter[tuple[str, str]] = Counter()
    for entry, gang in zip(jobs.running, jobs.running_gangs, strict=True):
        for model in gang.models:
            held[entry["tenant"], model] += gang.gpu * gang.replicas
    above: Counter[str] = Counter()
    for (queue, model), milli_gpu in held.items():
        above[model] += max(milli_gpu - tree.own.get((queue, model), 0), 0)
    return above


def _size(model: str, nominal: int, above: int, gangs: Sequence[Gang]) -> tuple[int, int]:
    """Return how many nodes of how many GPUs carry everything that can be held of one model at once."""
    if nominal > NOMINAL_GPUS_MAXIMUM * units.MILLI:
        nominal = max(NOMINAL_GPUS_MAXIMUM * units.MILLI, sum(gang.gpu * gang.replicas for gang in gangs))
    # Fractions of different tenants never share a device, so each counts as one.
    fractions = sum(gang.replicas for gang in gangs if 0 < gang.gpu < units.MILLI)
    total = -(-(nominal + above) // units.MILLI) + fractions
    largest = units.GPUS_PER_REPLICA_MAXIMUM
    if total <= largest:
        return (1 if total else 0), total
    replica = max((-(-gang.gpu // units.MILLI) for gang in gangs), default=1)
    replicas = sum(gang.replicas for gang in gangs)
    count = max(-(-total // largest), min(-(-total // (largest - replica + 1)), replicas))
    if count > NODES_MAXIMUM:
        raise KueueError(None, f"nodes of {model}", f"{total} GPUs need {count} nodes, more than {NODES_MAXIMUM}")
    return count, largest


def _at_least(nominal: int, asked: int, per_number: int, maximum: int) -> int:
    """Return the larger of both in the numbers of a file, rounded up."""
    return min(-(-max(nominal, asked) // per_number), maximum)
