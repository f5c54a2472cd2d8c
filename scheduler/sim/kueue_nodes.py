"""Nodes for a converted scenario: Kueue has none, so they are made up, large enough that quota alone decides.

Owns how many GPUs, CPUs and how much memory they have, and proves that placement never refuses what quota allows. Does not own
quotas or jobs. With G GPUs on each of N nodes, a replica of r GPUs finds no node only if more than N x (G - r) GPUs are held, so
N x (G - r + 1) of at least all GPUs that can be held at once is enough. Up to 256 GPUs are one node of exactly that size. CPUs
and memory are on every node as much as all jobs together can hold. Example: 1000 GPUs and replicas of 8 are 5 nodes of 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scheduler.sim import expansion, units
from scheduler.sim.kueue_documents import KueueError, Note
from scheduler.sim.kueue_jobs import Gang
from scheduler.sim.kueue_tree import CPU, MEMORY
from scheduler.sim.scenario import NODES_MAXIMUM

# A larger nominal quota says "unlimited" rather than how much there is; then the jobs say how much is needed.
NOMINAL_GPUS_MAXIMUM = 65_536


def build(
    models: Iterable[str], nominal: Mapping[str, int], running: list[Gang], queued: list[Gang], notes: list[Note]
) -> list[dict[str, Any]]:
    """Return the section `nodes`. `nominal` is the sum of all nominal quotas by model, cpu and memory, in our units."""
    gangs = [*running, *queued]
    cpus = _at_least(nominal.get(CPU, 0), sum(gang.cpu * gang.replicas for gang in gangs), units.MILLI, units.CPUS_MAXIMUM)
    memory = _at_least(
        nominal.get(MEMORY, 0), sum(gang.memory * gang.replicas for gang in gangs), units.GIB_BYTES, units.MEMORY_GIB_MAXIMUM
    )
    beside = {"cpus": cpus, "memory_gib": memory}
    taken: set[str] = set()
    nodes: list[dict[str, Any]] = []
    for model in dict.fromkeys([*models, *(model for gang in gangs for model in gang.models if model != "any")]):
        count, gpus = _size(model, nominal.get(model, 0), running, queued)
        if not count:
            continue
        name = model if not taken.intersection(expansion.names(model, count)) and not model.startswith("flavor:") else f"node:{model}"
        taken.update(expansion.names(name, count))
        entry: dict[str, Any] = {"name": name} | ({"count": count} if count > 1 else {})
        nodes.append(entry | {"gpu_model": model, "gpus": gpus} | {key: value for key, value in beside.items() if value})
    if not nodes and (cpus or memory):
        nodes.append({"name": "node", **{key: value for key, value in beside.items() if value}})
    if nodes:
        notes.append(Note(None, "nodes", "made up, large enough for all quotas, because Kueue has no nodes; put in your own"))
    return nodes


def _size(model: str, nominal: int, running: list[Gang], queued: list[Gang]) -> tuple[int, int]:
    """Return how many nodes of how many GPUs carry everything that can be held of one model at once."""
    held = [gang for gang in running if model in gang.models]
    wanted = [gang for gang in queued if model in gang.models]
    asked = sum(gang.gpu * gang.replicas for gang in (*held, *wanted))
    if nominal > NOMINAL_GPUS_MAXIMUM * units.MILLI:
        nominal = max(NOMINAL_GPUS_MAXIMUM * units.MILLI, asked)
    most = max(nominal, sum(gang.gpu * gang.replicas for gang in held))
    # Fractions of different tenants never share a device, so each counts as one.
    fractions = sum(gang.replicas for gang in (*held, *wanted) if 0 < gang.gpu < units.MILLI)
    total = -(-most // units.MILLI) + fractions
    largest = units.GPUS_PER_REPLICA_MAXIMUM
    if total <= largest:
        return (1 if total else 0), total
    replica = max((-(-gang.gpu // units.MILLI) for gang in (*held, *wanted)), default=1)
    count = -(-total // (largest - replica + 1))
    if count > NODES_MAXIMUM:
        raise KueueError(None, f"nodes of {model}", f"{total} GPUs for replicas of {replica} need {count} nodes, more than {NODES_MAXIMUM}")
    return count, largest


def _at_least(nominal: int, asked: int, per_number: int, maximum: int) -> int:
    """Return the larger of both in the numbers of a file, rounded up."""
    return min(-(-max(nominal, asked) // per_number), maximum)
