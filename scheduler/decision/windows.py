"""Windows: devices set aside for a tenant, and nodes closed for maintenance, in a span of time.

Owns which devices a capacity reservation gets and what a job may not touch because of a window that it would reach into. A job starts
only where it ends, by its limit, before a window begins that is not its own: so the devices drain before the window. Does not own
order or quota: inside its window a tenant's jobs go first (decide.py), and its quota counts as always.

The choice of devices is made anew in every decision and remembers nothing: first devices that nobody else would still hold when the
window begins, on nodes of which the tenant already holds most, and on as few nodes as possible.
Example: 16 GPUs from 18:00 on nodes of 8 get the two nodes that are free of longer jobs of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from domain.jobs import Shape
from domain.reasons import Reason, ReasonCode, ReasonValue, Unblock
from domain.slices import MILLI_GPU_PER_DEVICE
from scheduler.decision.fit import Fleet, Member, bits
from scheduler.decision.snapshot import CapacityReservation, Snapshot, model_of

_NO_MACHINE = Shape((), 1, 0)  # devices only: no CPU, no memory


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time with what is closed to all but its members. `devices` maps nodes to sets of devices; `nodes` are closed whole."""

    name: str
    start_ms: int
    end_ms: int
    tenant: str | None
    model: str | None = None
    devices: dict[int, int] = field(default_factory=dict)
    nodes: int = 0

    def is_open_at(self, now_ms: int) -> bool:
        """Tell whether the window has begun and not ended."""
        return self.start_ms <= now_ms < self.end_ms


@dataclass(frozen=True, slots=True)
class Closed:
    """What a job may not touch because of windows."""

    nodes: int
    devices: dict[int, int]
    windows: tuple[Window, ...]


_NOTHING = Closed(0, {}, ())


class Windows:
    """The windows of one decision. `is_empty` says that nothing is ever closed, so that nobody has to ask."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._tree = snapshot.tree
        self.all: list[Window] = [
            Window(item.name, item.start_ms, item.end_ms, None, nodes=_positions(snapshot, item.nodes))
            for item in snapshot.maintenance_windows
            if item.end_ms > snapshot.now_ms
        ]
        reservations = [item for item in snapshot.capacity_reservations if item.end_ms > snapshot.now_ms]
        for item in sorted(reservations, key=lambda item: item.start_ms):
            self.all.append(self._choose(snapshot, item))
        self._known: dict[tuple[int, ...], Closed] = {}

    @property
    def is_empty(self) -> bool:
        """True when there is no window at all."""
        return not self.all

    def moments(self) -> list[int]:
        """Return the times at which something opens or closes, in order."""
        return sorted({moment for window in self.all for moment in (window.start_ms, window.end_ms)})

    def _is_member(self, window: Window, leaf: str) -> bool:
        return window.tenant is not None and window.tenant in self._tree.path(leaf)

    def closed_to(self, leaf: str, from_ms: int, until_ms: int) -> Closed:
        """Return what a job of `leaf` that runs during [from_ms, until_ms) may not touch."""
        which = tuple(
            at
            for at, window in enumerate(self.all)
            if from_ms < window.end_ms and window.start_ms < until_ms and not self._is_member(window, leaf)
        )
        if not which:
            return _NOTHING
        known = self._known.get(which)
        if known is None:
            nodes, devices = 0, dict[int, int]()
            for at in which:
                nodes |= self.all[at].nodes
                for node, mask in self.all[at].devices.items():
                    devices[node] = devices.get(node, 0) | mask
            known = self._known[which] = Closed(nodes, devices, tuple(self.all[at] for at in which))
        return known

    def _choose(self, snapshot: Snapshot, item: CapacityReservation) -> Window:
        model = model_of(item.flavor, snapshot.flavors)
        taken = self._taken_during(item)
        late, own = self._held(snapshot, item)
        layout = snapshot.fleet.layout
        open_devices = {
            position: usable & ~taken.get(position, 0)
            for position, usable in enumerate(layout.usable)
            if layout.model[position] == model and layout.schedulable >> position & 1
        }
        left = -(-item.milli_gpu // MILLI_GPU_PER_DEVICE)
        chosen: dict[int, int] = {}
        # First what drains in time, then what others hold for longer: it comes back when they end, or leave for the tenant.
        for wanted in (
            {position: devices & ~late.get(position, 0) for position, devices in open_devices.items()},
            {position: devices & late.get(position, 0) for position, devices in open_devices.items()},
        ):
            while left and (position := _next_node(wanted, own, left)) is not None:
                devices = wanted.pop(position)
                mine = own.get(position, 0)
                mask = sum(1 << index for index in [*bits(devices & mine), *bits(devices & ~mine)][:left])
                chosen[position] = chosen.get(position, 0) | mask
                left -= mask.bit_count()
        return Window(item.name, item.start_ms, item.end_ms, item.tenant, model, chosen)

    def _taken_during(self, item: CapacityReservation) -> dict[int, int]:
        taken: dict[int, int] = {}
        for window in self.all:
            if window.start_ms < item.end_ms and item.start_ms < window.end_ms:
                for node, mask in window.devices.items():
                    taken[node] = taken.get(node, 0) | mask
                for node in bits(window.nodes):
                    taken[node] = -1
        return taken

    def _held(self, snapshot: Snapshot, item: CapacityReservation) -> tuple[dict[int, int], dict[int, int]]:
        """Return the devices that others still hold when the window begins, and those that the tenant holds."""
        late: dict[int, int] = {}
        own: dict[int, int] = {}
        for job in snapshot.running:
            is_own = job.tenant in self._tree and item.tenant in self._tree.path(job.tenant)
            if not is_own and job.ends_ms(snapshot.now_ms) <= max(item.start_ms, snapshot.now_ms + 1):
                continue
            held = own if is_own else late
            for member in snapshot.fleet.members_of(job.shape, job.slices, job.nodes):
                held[member.node] = held.get(member.node, 0) | member.devices
        return late, own


def _next_node(devices: dict[int, int], own: dict[int, int], left: int) -> int | None:
    """Return the node to take from: the smallest that has all that is left, else the largest; where the tenant holds most already."""
    found = [position for position, mask in devices.items() if mask]
    enough = [position for position in found if devices[position].bit_count() >= left]

    def preference(position: int) -> tuple[int, int, int]:
        count = devices[position].bit_count()
        return (-(devices[position] & own.get(position, 0)).bit_count(), count if enough else -count, position)

    return min(enough or found, key=preference, default=None)


@contextmanager
def without(fleet: Fleet, closed: Closed) -> Iterator[int]:
    """Take the closed devices from `fleet` for a while; yields the nodes that are not closed whole, as a set of bits to keep."""
    members = [Member(node, mask & fleet.free_devices[node]) for node, mask in closed.devices.items()]
    members = [member for member in members if member.devices]
    fleet.take(members, _NO_MACHINE)
    try:
        yield ~closed.nodes
    finally:
        fleet.give_back(members, _NO_MACHINE)


@contextmanager
def only(fleet: Fleet, window: Window) -> Iterator[int]:
    """Leave only a window's own devices free on its nodes for a while; yields those nodes as a set of bits."""
    members = [Member(node, fleet.free_devices[node] & ~mask) for node, mask in window.devices.items()]
    fleet.take(members, _NO_MACHINE)
    try:
        yield sum(1 << node for node in window.devices)
    finally:
        fleet.give_back(members, _NO_MACHINE)


def reason(closed: Closed, limit_ms: int, now_ms: int, *, grace_ms: int = 0) -> Reason:
    """Return why a job waits that would fit if it reached into no window: the first of them, by time."""
    first = min(closed.windows, key=lambda window: window.start_ms)
    kind = "capacity_reservation" if first.tenant is not None else "maintenance"
    data: dict[str, ReasonValue] = {kind: first.name, "starts_ms": first.start_ms, "ends_ms": first.end_ms, "limit_ms": limit_ms}
    if first.start_ms > now_ms:
        data["longest_limit_ms"] = max(first.start_ms - now_ms - grace_ms, 0)
    return Reason(ReasonCode.CAPACITY_RESERVED, data, Unblock.RESERVATION_ENDS)


def _positions(snapshot: Snapshot, names: Sequence[str]) -> int:
    position = snapshot.fleet.layout.position
    return sum(1 << position[name] for name in dict.fromkeys(names) if name in position)
