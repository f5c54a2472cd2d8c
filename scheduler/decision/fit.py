"""Fit: an index of what is free in the fleet, answering "where could this fit" in a few integer operations.

Owns free devices, CPU and memory per node, and buckets keyed by (GPU model, free devices). Does not own which of the
places that fit is taken (place.py) or quota. A bucket is an integer used as a set of nodes: bit i is the node at
position i of the snapshot. So the lowest bit is the first node, the choice never depends on history, a copy is
cheap, and a site, a rack or an exclusion is one `&`. Only schedulable nodes stand in buckets. A node has one GPU model; a device of
another one, which an inventory should not have let in, is never given to anybody.

Example: 3 nodes with 8, 8 and 5 free devices of h200: buckets["h200"][8] == 0b011 and buckets["h200"][5] == 0b100.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.jobs import Shape
from domain.slices import MILLI_GPU_PER_DEVICE, DeviceHealth, DeviceMode, Slice
from scheduler.decision.nodes import Node
from scheduler.decision.where import ANYWHERE, Where, Within

DEVICES_PER_NODE_MAXIMUM = 256  # what a node may name; the buckets of a model have one place per count

SHAPES_KEPT_MAXIMUM = 10_000  # remembered answers of `largest_gang`; a tenant that varies its shapes cannot fill the memory


@dataclass(frozen=True, slots=True)
class Member:
    """One replica's place: the node's position and the devices it gets there, as a set of bits."""

    node: int
    devices: int


def bits(mask: int) -> Iterator[int]:
    """Yield the positions of the set bits, lowest first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _usable_devices(node: Node) -> int:
    usable = 0
    for device in node.devices:
        if device.health is DeviceHealth.HEALTHY and device.mode is DeviceMode.WHOLE and device.model == node.gpu_model:
            usable |= 1 << device.index
    return usable


def _room_when_empty(node: Node, shape: Shape, model: str | None, where: Where) -> int:
    if (shape.slices_per_replica and node.gpu_model != model) or not where.accepts(node):
        return 0
    room = shape.replicas
    if shape.slices_per_replica:
        devices = sum(device.model == model for device in node.devices)
        if where.within is Within.ISLAND:
            devices = max((island.bit_count() for island in _islands(node)), default=0)
        room = min(room, devices // shape.slices_per_replica)
    if shape.cpu_milli_per_replica:
        room = min(room, node.cpu_milli // shape.cpu_milli_per_replica)
    if shape.memory_bytes_per_replica:
        room = min(room, node.memory_bytes // shape.memory_bytes_per_replica)
    return room


def _islands(node: Node) -> tuple[int, ...]:
    """Return the NVLink islands of a node as sets of devices of its model."""
    islands: dict[int, int] = {}
    for device in node.devices:
        if device.model != node.gpu_model:
            continue
        islands[device.island] = islands.get(device.island, 0) | 1 << device.index
    return tuple(islands.values())


class _Layout:
    """What does not change within a decision: names, sites, racks, sizes. Shared by all copies of a fleet."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        self.position = {node.name: position for position, node in enumerate(nodes)}
        self.model = [node.gpu_model for node in nodes]
        self.sites: dict[str, int] = {}
        self.racks: dict[tuple[str, str], int] = {}
        self.has_devices = 0
        self.schedulable = 0
        self.usable: list[int] = []
        self.islands: dict[int, tuple[int, ...]] = {}  # of nodes that have more than one
        self.is_tainted = any(node.taints for node in nodes)
        for position, node in enumerate(nodes):
            bit = 1 << position
            self.usable.append(_usable_devices(node))
            self.sites[node.site] = self.sites.get(node.site, 0) | bit
            if node.rack:
                self.racks[node.site, node.rack] = self.racks.get((node.site, node.rack), 0) | bit
            if node.devices:
                self.has_devices |= bit
            if node.is_schedulable:
                self.schedulable |= bit
            islands = _islands(node)
            if len(islands) > 1:
                self.islands[position] = islands

        self._racks_of: dict[str, list[int]] = {}
        for (site, _), mask in self.racks.items():
            self._racks_of.setdefault(site, []).append(mask)
        self.rack_masks = [rack for site in self.sites for rack in self._racks_of.get(site, [])]
        self.rack_at = [len(self.rack_masks)] * len(self.nodes)  # number of each node's rack; one more than there are for a node without
        for at, rack in enumerate(self.rack_masks):
            for position in bits(rack):
                self.rack_at[position] = at
        self.rack_schedulable = [rack & self.schedulable for rack in self.rack_masks]
        self._kinds = self._find_kinds()
        self.usable_total: dict[str, int] = {}  # of schedulable nodes standing empty, by model
        for position in bits(self.schedulable):
            model = self.model[position]
            if model is not None:
                self.usable_total[model] = self.usable_total.get(model, 0) + self.usable[position].bit_count()
        self._largest_gangs: dict[tuple[Shape, str | None, bool, Where], int] = {}
        self._accepted: dict[Where, int] = {}

    def _find_kinds(self) -> list[tuple[Node, int]]:
        """Return one node of each kind, with all of its kind as a set of bits: nodes that any job fits equally when they stand empty."""
        kinds: dict[tuple[object, ...], list[int]] = {}
        for position, node in enumerate(self.nodes):
            of_model = sum(device.model == node.gpu_model for device in node.devices)
            islands = self.islands.get(position, ())
            labels = tuple(sorted(node.labels.items()))
            kind = (node.site, node.gpu_model, of_model, islands, node.cpu_milli, node.memory_bytes, labels, node.taints)
            kinds.setdefault(kind, []).append(position)
        return [(self.nodes[positions[0]], sum(1 << position for position in positions)) for positions in kinds.values()]

    def racks_of(self, site: str) -> list[int]:
        """Return the racks of a site as sets of bits."""
        return self._racks_of.get(site, [])

    def racks_with(self, nodes: int) -> list[int]:
        """Return the numbers of the racks that hold any of `nodes`, in order."""
        if nodes.bit_count() >= len(self.rack_masks):
            return [at for at, mask in enumerate(self.rack_masks) if mask & nodes]
        return sorted({at for position in bits(nodes) if (at := self.rack_at[position]) < len(self.rack_masks)})

    def accepted(self, where: Where) -> int:
        """Return the nodes that `where` accepts, as a set of bits. The answer lasts as long as the nodes do, so it is kept."""
        known = self._accepted.get(where)
        if known is None:
            if len(self._accepted) >= SHAPES_KEPT_MAXIMUM:
                self._accepted.clear()
            known = self._accepted[where] = sum(members for node, members in self._kinds if where.accepts(node))
        return known

    def largest_gang(self, shape: Shape, model: str | None, *, spans_nodes: bool, where: Where = ANYWHERE) -> int:
        """Return how many replicas the best site (the best node when gangs may not span nodes) takes when it stands empty.

        Drained and lost nodes count, and faulty devices: they may return. The answer lasts as long as the nodes do, so it is kept.
        """
        key = (shape, model, spans_nodes, where)
        known = self._largest_gangs.get(key)
        if known is None:
            if len(self._largest_gangs) >= SHAPES_KEPT_MAXIMUM:
                self._largest_gangs.clear()
            known = self._largest_gangs[key] = self._count_largest_gang(shape, model, spans_nodes, where)
        return known

    def _count_largest_gang(self, shape: Shape, model: str | None, spans_nodes: bool, where: Where) -> int:
        rooms = [(room, members) for node, members in self._kinds if (room := _room_when_empty(node, shape, model, where))]
        largest = 0
        for site, mask in self.sites.items():
            if shape.sites and site not in shape.sites:
                continue
            groups = [mask] if where.within is Within.SITE else self.racks_of(site)
            if not spans_nodes or where.within is not Within.SITE:
                largest = max([largest, *(room for room, members in rooms if members & mask)])
            if spans_nodes and where.within in (Within.SITE, Within.RACK):
                sums = (sum(room * (members & group).bit_count() for room, members in rooms) for group in groups)
                largest = max([largest, *sums])
        return largest


class Fleet:
    """Free devices, CPU and memory of all nodes. `hold` and `release` change this fleet only."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Index `nodes`, with everything free that is healthy and whole."""
        self.layout = _Layout(nodes)
        self.free_devices: list[int] = []
        self.free_cpu_milli = [node.cpu_milli for node in nodes]
        self.free_memory_bytes = [node.memory_bytes for node in nodes]
        self.free_total: dict[str, int] = {}
        self.buckets: dict[str, list[int]] = {}
        largest: dict[str, int] = {}
        for node in nodes:
            if node.gpu_model is not None:
                largest[node.gpu_model] = max(largest.get(node.gpu_model, 0), len(node.devices))
        self.free_in_racks: dict[str, list[int]] = {}  # by model, then by number of the rack
        for model, count in largest.items():
            self.buckets[model] = [0] * (count + 1)
            self.free_total[model] = 0
            self.free_in_racks[model] = [0] * (len(self.layout.rack_masks) + 1)
        for position, (node, usable) in enumerate(zip(nodes, self.layout.usable, strict=True)):
            self.free_devices.append(usable)
            if node.gpu_model is not None and node.is_schedulable:
                self.buckets[node.gpu_model][usable.bit_count()] |= 1 << position
                self.free_total[node.gpu_model] += usable.bit_count()
                self.free_in_racks[node.gpu_model][self.layout.rack_at[position]] += usable.bit_count()
        self._no_room: set[tuple[object, ...]] = set()

    def copy(self) -> Fleet:
        """Return a fleet that changes apart from this one."""
        twin = object.__new__(Fleet)
        twin.layout = self.layout
        twin.free_devices = self.free_devices.copy()
        twin.free_cpu_milli = self.free_cpu_milli.copy()
        twin.free_memory_bytes = self.free_memory_bytes.copy()
        twin.free_total = self.free_total.copy()
        twin.buckets = {model: row.copy() for model, row in self.buckets.items()}
        twin.free_in_racks = {model: counts.copy() for model, counts in self.free_in_racks.items()}
        twin._no_room = self._no_room.copy()
        return twin

    def _set_free(self, position: int, devices: int) -> None:
        before = self.free_devices[position]
        self.free_devices[position] = devices
        model = self.layout.model[position]
        bit = 1 << position
        if model is None or not self.layout.schedulable & bit:
            return
        old_count, new_count = before.bit_count(), devices.bit_count()
        if old_count != new_count:
            row = self.buckets[model]
            row[old_count] ^= bit
            row[new_count] ^= bit
            self.free_total[model] += new_count - old_count
            self.free_in_racks[model][self.layout.rack_at[position]] += new_count - old_count

    def has_no_room(self, question: tuple[object, ...]) -> bool:
        """Tell whether the question was answered by "no room" before, and nothing came back since: what is free has only shrunk."""
        return question in self._no_room

    def note_no_room(self, question: tuple[object, ...]) -> None:
        """Remember the answer "no room" to a question, until something is given back."""
        if len(self._no_room) >= SHAPES_KEPT_MAXIMUM:
            self._no_room.clear()
        self._no_room.add(question)

    def take(self, members: Sequence[Member], shape: Shape) -> None:
        """Take what `members` name; they came from `place` on this fleet, so all of it is free."""
        cpu_milli, memory_bytes = shape.cpu_milli_per_replica, shape.memory_bytes_per_replica
        for member in members:
            if member.devices:
                self._set_free(member.node, self.free_devices[member.node] & ~member.devices)
            self.free_cpu_milli[member.node] -= cpu_milli
            self.free_memory_bytes[member.node] -= memory_bytes

    def give_back(self, members: Sequence[Member], shape: Shape) -> None:
        """Free what `members` name: the mirror image of `take`. A device that turned faulty under a lease does not come back with it."""
        self._no_room.clear()
        cpu_milli, memory_bytes = shape.cpu_milli_per_replica, shape.memory_bytes_per_replica
        for member in members:
            if member.devices:
                self._set_free(member.node, self.free_devices[member.node] | (member.devices & self.layout.usable[member.node]))
            self.free_cpu_milli[member.node] += cpu_milli
            self.free_memory_bytes[member.node] += memory_bytes

    def members_of(self, shape: Shape, slices: Sequence[Slice], nodes: Sequence[str]) -> list[Member]:
        """Return the places of a running job. Nodes that left the fleet are left out: nothing of them can come back."""
        devices = [0] * shape.replicas
        for piece in slices:
            devices[piece.replica] |= 1 << piece.device_index
        position = self.layout.position
        return [Member(position[name], devices[replica]) for replica, name in enumerate(nodes) if name in position]

    def hold(self, shape: Shape, slices: Sequence[Slice], nodes: Sequence[str]) -> None:
        """Take what a running job holds."""
        self.take(self.members_of(shape, slices, nodes), shape)

    def release(self, shape: Shape, slices: Sequence[Slice], nodes: Sequence[str]) -> None:
        """Free what a running job held."""
        self.give_back(self.members_of(shape, slices, nodes), shape)

    def slices(self, members: Sequence[Member]) -> tuple[Slice, ...]:
        """Name the slices of `members`, replica by replica, devices in order."""
        nodes = self.layout.nodes
        return tuple(
            Slice(replica, nodes[member.node].name, index, MILLI_GPU_PER_DEVICE)
            for replica, member in enumerate(members)
            for index in bits(member.devices)
        )

    def node_names(self, members: Sequence[Member]) -> tuple[str, ...]:
        """Name the node of each replica."""
        nodes = self.layout.nodes
        return tuple([nodes[member.node].name for member in members])

    def allowed(self, shape: Shape, where: Where = ANYWHERE) -> int:
        """Return the schedulable nodes that `shape` and `where` accept, as a set of bits."""
        mask = self.layout.schedulable
        if shape.sites:
            mask &= self.on_sites(shape.sites)
        if where is not ANYWHERE or self.layout.is_tainted:
            mask &= self.layout.accepted(where)
        return mask

    def on_sites(self, sites: Sequence[str]) -> int:
        """Return the nodes on the named sites, as a set of bits."""
        mask = 0
        for site in sites:
            mask |= self.layout.sites.get(site, 0)
        return mask

    def free_on(self, mask: int, model: str) -> int:
        """Count free devices of `model` on the nodes of `mask`."""
        return sum(count * (members & mask).bit_count() for count, members in enumerate(self.buckets.get(model, ())))

    def largest(self, amounts: Sequence[int], mask: int) -> int:
        """Return the largest of `amounts`, one per node, on the nodes of `mask`; 0 without a node."""
        if mask.bit_count() == len(amounts):
            return max(amounts, default=0)
        return max((amounts[position] for position in bits(mask)), default=0)

    def free_in_rack(self, at: int, nodes: int, model: str | None) -> int:
        """Count free devices of `model` on those nodes of a rack that stand in `nodes`; the nodes where no model is asked for."""
        if model is None:
            return nodes.bit_count()
        return self.free_in_racks[model][at] if nodes == self.layout.rack_schedulable[at] else self.free_on(nodes, model)

    def replicas_on(self, position: int, shape: Shape) -> int:
        """How many replicas of `shape` fit on one node now, by devices, CPU and memory."""
        fitting = shape.replicas
        if shape.slices_per_replica:
            fitting = min(fitting, self.free_devices[position].bit_count() // shape.slices_per_replica)
        if shape.cpu_milli_per_replica:
            fitting = min(fitting, self.free_cpu_milli[position] // shape.cpu_milli_per_replica)
        if shape.memory_bytes_per_replica:
            fitting = min(fitting, self.free_memory_bytes[position] // shape.memory_bytes_per_replica)
        return max(fitting, 0)

    def replicas_within(self, mask: int, shape: Shape, model: str | None) -> int:
        """How many replicas of `shape` fit on the nodes of `mask` together; stops counting once the gang fits."""
        needs_machine = shape.cpu_milli_per_replica or shape.memory_bytes_per_replica
        per_replica = shape.slices_per_replica
        total = 0
        if per_replica and model is not None:
            row = self.buckets.get(model, [])
            for count in range(len(row) - 1, per_replica - 1, -1):
                members = row[count] & mask
                total += count // per_replica * members.bit_count()
            if total < shape.replicas or not needs_machine:
                return total
        total = 0
        for position in bits(self.candidates(mask, per_replica, model)):
            total += self.replicas_on(position, shape)
            if total >= shape.replicas:
                break
        return total

    def candidates(self, mask: int, free_devices: int, model: str | None) -> int:
        """Return the nodes of `mask` with at least `free_devices` free devices of `model`; all of them when none is needed."""
        if not free_devices or model is None:
            return mask & self.layout.schedulable
        found = 0
        for members in self.buckets.get(model, [])[free_devices:]:
            found |= members
        return found & mask
