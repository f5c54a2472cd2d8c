"""Place: choose the nodes and devices of a gang among those that fit, or say why none does.

Owns the placement policies for whole devices. Does not own the index (fit.py), quota (gate.py) or forward start times
(backfill.py, which narrows the nodes that may be used). A gang is compact: one node before one rack before one site, and
never two sites. Between equals the place that leaves the least behind wins (best fit), then the first in the
snapshot. `first_fit` walks nodes in order, `spread` puts replicas on the emptiest nodes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from domain.jobs import Shape
from domain.reasons import Reason, ReasonCode, Unblock
from scheduler.decision.fit import Fleet, Member, bits
from scheduler.decision.snapshot import Placement, Policy
from scheduler.decision.where import ANYWHERE, Where, Within

Members = list[Member]


def place(fleet: Fleet, shape: Shape, *, model: str | None, policy: Policy, allowed: int, where: Where = ANYWHERE) -> Members | None:
    """Return one member per replica on the nodes of `allowed`, or None when the gang does not fit there."""
    if model is not None and fleet.free_total.get(model, 0) < shape.slices:
        return None
    question = (shape, model, allowed, where.within, policy.placement, policy.spans_nodes)
    if fleet.has_no_room(question):
        return None
    for site in where.preferred_sites:
        members = _place(fleet, shape, model, policy, allowed & fleet.on_sites((site,)), where.within)
        if members is not None:
            return members
    members = _place(fleet, shape, model, policy, allowed, where.within)
    if members is None:
        fleet.note_no_room(question)
    return members


def _place(fleet: Fleet, shape: Shape, model: str | None, policy: Policy, allowed: int, within: Within) -> Members | None:
    stays_on_node = shape.replicas == 1 or not policy.spans_nodes or within in (Within.NODE, Within.ISLAND)
    if stays_on_node or policy.placement in (Placement.FRAGMENTATION, Placement.BEST_FIT):
        node = _single_node(fleet, shape, model, policy.placement, allowed, within)
        if node is not None:
            return _take_on_nodes(fleet, shape, [(node, shape.replicas)])
    if stays_on_node:
        return None
    nodes = _smallest_group(fleet, shape, model, policy.placement, allowed, within)
    if not nodes:
        return None
    return _fill(fleet, shape, model, policy.placement, nodes)


def _take_on_nodes(fleet: Fleet, shape: Shape, counts: Iterable[tuple[int, int]]) -> Members:
    """Choose devices for the given numbers of replicas per node: of one NVLink island where that is possible, lowest index first."""
    members = []
    for node, replicas in counts:
        free = fleet.free_devices[node]
        islands = fleet.layout.islands.get(node)
        for _ in range(replicas):
            source = _best_island(free, shape.slices_per_replica, islands) if islands else free
            devices = 0
            for _ in range(shape.slices_per_replica):
                lowest = source & -source
                devices |= lowest
                source ^= lowest
            free &= ~devices
            members.append(Member(node, devices))
    return members


def _best_island(free: int, devices: int, islands: tuple[int, ...]) -> int:
    """Return the free devices of the fullest island that still has enough; all free ones when none has."""
    fitting = [island & free for island in islands if (island & free).bit_count() >= devices]
    return min(fitting, key=lambda island: (island.bit_count(), island & -island)) if fitting else free


def _single_node(fleet: Fleet, shape: Shape, model: str | None, placement: Placement, allowed: int, within: Within) -> int | None:
    """Return the one node that takes the whole gang, or None. A node where one island takes it is better than one where none does."""
    if fleet.layout.islands and shape.slices > 1:
        node = _first_node(fleet, shape, model, placement, allowed, on_one_island=True)
        if node is not None or within is Within.ISLAND:
            return node
    return _first_node(fleet, shape, model, placement, allowed, on_one_island=False)


def _first_node(fleet: Fleet, shape: Shape, model: str | None, placement: Placement, allowed: int, *, on_one_island: bool) -> int | None:
    for mask in _by_preference(fleet, shape.slices, model, placement, allowed):
        if not shape.cpu_milli_per_replica and not shape.memory_bytes_per_replica and not on_one_island:
            if mask:
                return (mask & -mask).bit_length() - 1
            continue
        for node in bits(mask):
            if fleet.replicas_on(node, shape) >= shape.replicas and (not on_one_island or _fits_an_island(fleet, node, shape.slices)):
                return node
    return None


def _fits_an_island(fleet: Fleet, node: int, devices: int) -> bool:
    free = fleet.free_devices[node]
    islands = fleet.layout.islands.get(node, (free,))
    return any((island & free).bit_count() >= devices for island in islands)


def _by_preference(fleet: Fleet, devices: int, model: str | None, placement: Placement, allowed: int) -> Iterable[int]:
    """Yield sets of nodes with enough free devices, the preferred set first."""
    if model is None or not devices:
        # A job without GPUs goes where no GPU could be stranded for want of CPU or memory.
        yield allowed & ~fleet.layout.has_devices
        yield allowed & fleet.layout.has_devices
        return
    row = fleet.buckets.get(model, [])
    if placement is Placement.FIRST_FIT:
        yield fleet.candidates(allowed, devices, model)
    elif placement is Placement.SPREAD:
        for count in range(len(row) - 1, devices - 1, -1):
            yield row[count] & allowed
    else:
        for count in range(devices, len(row)):
            yield row[count] & allowed


def _smallest_group(fleet: Fleet, shape: Shape, model: str | None, placement: Placement, allowed: int, within: Within) -> int:
    """Return the nodes of the tightest rack that takes the gang, else of the tightest site, else no node."""
    sites = [(site, mask & allowed) for site, mask in fleet.layout.sites.items()]
    fitting = fleet.candidates(allowed, shape.slices_per_replica, model)
    if fleet.replicas_within(fitting, shape, model) < shape.replicas:
        return 0
    if placement in (Placement.FRAGMENTATION, Placement.BEST_FIT) or within is Within.RACK:
        rack = _tightest_rack(fleet, shape, model, allowed, fitting)
        if rack or within is Within.RACK:
            return rack
        return _tightest(fleet, shape, model, [mask for _, mask in sites])
    for _, mask in sites:
        if fleet.replicas_within(mask, shape, model) >= shape.replicas:
            return mask
    return 0


def _tightest_rack(fleet: Fleet, shape: Shape, model: str | None, allowed: int, fitting: int) -> int:
    """Return the allowed nodes of the rack with the least free that takes the gang, else no node. `fitting` take a replica each."""
    layout, wanted = fleet.layout, shape.slices
    if model is not None and allowed == layout.schedulable:
        racks = [(free, at) for at, free in enumerate(fleet.free_in_racks[model][:-1]) if free >= wanted]
    else:
        racks = [(fleet.free_in_rack(at, layout.rack_masks[at] & allowed, model), at) for at in layout.racks_with(fitting)]
    for free, at in sorted(racks):
        nodes = layout.rack_masks[at] & allowed
        if (model is None or free >= wanted) and fleet.replicas_within(nodes, shape, model) >= shape.replicas:
            return nodes
    return 0


def _tightest(fleet: Fleet, shape: Shape, model: str | None, groups: list[int]) -> int:
    best, best_free = 0, -1
    for mask in groups:
        if not mask or fleet.replicas_within(mask, shape, model) < shape.replicas:
            continue
        free = fleet.free_on(mask, model) if model is not None else mask.bit_count()
        if best_free < 0 or free < best_free:
            best, best_free = mask, free
    return best


def _fill(fleet: Fleet, shape: Shape, model: str | None, placement: Placement, nodes: int) -> Members:
    """Put the replicas on nodes of one group that is known to take them all."""
    if placement is Placement.SPREAD:
        return _take_on_nodes(fleet, shape, _spread_counts(fleet, shape, model, nodes))
    order = bits(fleet.candidates(nodes, shape.slices_per_replica, model))
    if placement is Placement.FIRST_FIT:
        return _take_on_nodes(fleet, shape, _counts_in_order(fleet, shape, order))
    return _take_on_nodes(fleet, shape, _compact_counts(fleet, shape, list(order)))


def _counts_in_order(fleet: Fleet, shape: Shape, order: Iterable[int]) -> list[tuple[int, int]]:
    counts, missing = [], shape.replicas
    for node in order:
        here = min(fleet.replicas_on(node, shape), missing)
        if here:
            counts.append((node, here))
            missing -= here
        if not missing:
            break
    return counts


def _compact_counts(fleet: Fleet, shape: Shape, order: list[int]) -> list[tuple[int, int]]:
    """Use the fewest nodes: the roomiest first, and for the rest the tightest node that takes all of it."""
    room = {node: fleet.replicas_on(node, shape) for node in order}
    roomiest = sorted(order, key=lambda node: (-room[node], fleet.free_devices[node].bit_count(), node))
    counts: list[tuple[int, int]] = []
    missing = shape.replicas
    for at, node in enumerate(roomiest):
        if room[node] >= missing:
            last = min(
                (other for other in roomiest[at:] if room[other] >= missing),
                key=lambda other: (fleet.free_devices[other].bit_count(), other),
            )
            counts.append((last, missing))
            break
        counts.append((node, room[node]))
        missing -= room[node]
    return counts


def _spread_counts(fleet: Fleet, shape: Shape, model: str | None, nodes: int) -> list[tuple[int, int]]:
    """Give each replica to the node with the most free devices left, one at a time."""
    room: dict[int, int] = {}
    heap: list[tuple[int, int]] = []
    for node in bits(fleet.candidates(nodes, shape.slices_per_replica, model)):
        room[node] = fleet.replicas_on(node, shape)
        heap.append((-fleet.free_devices[node].bit_count(), node))
    heapq.heapify(heap)
    counts: dict[int, int] = {}
    for _ in range(shape.replicas):
        while not room[heap[0][1]]:
            heapq.heappop(heap)
        free, node = heap[0]
        counts[node] = counts.get(node, 0) + 1
        room[node] -= 1
        heapq.heapreplace(heap, (free + max(shape.slices_per_replica, 1), node))
    return list(counts.items())


def explain(fleet: Fleet, shape: Shape, *, model: str | None, policy: Policy, allowed: int, where: Where = ANYWHERE) -> Reason:
    """Say why `place` found nothing: too little free, too scattered over nodes, or too scattered over racks or sites."""
    data = _numbers(fleet, shape, model, allowed)
    if model is None or not shape.slices:
        return Reason(ReasonCode.NO_CAPACITY, data, Unblock.ANY_JOB_ENDS)
    free = fleet.free_on(allowed, model)
    if free < shape.slices:
        return Reason(ReasonCode.NO_CAPACITY, data, _who_returns(fleet, shape, model))
    if where.within is not Within.SITE:
        data["within"] = where.within.value
        if _place(fleet, shape, model, policy, allowed, Within.SITE) is not None:
            return Reason(ReasonCode.TOPOLOGY, data, Unblock.ANY_JOB_ENDS)  # there is room, but not as close together as asked for
    devices_only = Shape(shape.flavors, shape.replicas, shape.slices_per_replica, shape.milli_gpu_per_slice)
    sites = [mask & allowed for mask in fleet.layout.sites.values()]
    if not policy.spans_nodes:
        code = ReasonCode.FRAGMENTED
    elif any(fleet.replicas_within(mask, devices_only, model) >= shape.replicas for mask in sites):
        code = ReasonCode.NO_CAPACITY  # devices would do, CPU or memory does not
    elif fleet.replicas_within(allowed, devices_only, model) >= shape.replicas:
        code = ReasonCode.TOPOLOGY  # enough nodes, on more than one site
    else:
        code = ReasonCode.FRAGMENTED
    return Reason(code, data, Unblock.ANY_JOB_ENDS)


def _numbers(fleet: Fleet, shape: Shape, model: str | None, allowed: int) -> dict[str, int | str | bool | list[str] | list[int] | None]:
    data: dict[str, int | str | bool | list[str] | list[int] | None] = {"replicas": shape.replicas}
    if model is not None and shape.slices:
        counts = [count for count, members in enumerate(fleet.buckets.get(model, [])) if count and members & allowed]
        data["gpu_model"] = model
        data["gpus_per_replica"] = shape.slices_per_replica
        data["needed_gpus"] = shape.slices
        data["free_gpus"] = fleet.free_on(allowed, model)
        data["largest_free_block_gpus"] = max(counts, default=0)
        data["nodes_with_free_gpus"] = fleet.candidates(allowed, 1, model).bit_count()
    if shape.cpu_milli_per_replica:
        data["cpu_milli_per_replica"] = shape.cpu_milli_per_replica
        data["largest_free_cpu_milli"] = fleet.largest(fleet.free_cpu_milli, allowed)
    if shape.memory_bytes_per_replica:
        data["memory_bytes_per_replica"] = shape.memory_bytes_per_replica
        data["largest_free_memory_bytes"] = fleet.largest(fleet.free_memory_bytes, allowed)
    return data


def _who_returns(fleet: Fleet, shape: Shape, model: str) -> Unblock:
    """Ends of jobs help only when the schedulable nodes, standing empty, would do."""
    return Unblock.ANY_JOB_ENDS if fleet.layout.usable_total.get(model, 0) >= shape.slices else Unblock.NODE_RETURNS
