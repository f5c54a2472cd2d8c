"""Nodes, devices, flavors and prices.

Owns the rows of `node`, `device`, `flavor` and `price`. An operator makes a node and switches it; its agent's inventory fills in the
devices and brings the flavor of a GPU model that was never seen before. A device's mode is never touched here: open claims point at it.
Who holds a device is read from claims. Called by api; the scheduler reads nodes through store/scheduling.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from domain.slices import MILLI_GPU_PER_DEVICE, DeviceHealth, DeviceMode
from store import duplicates, operator_events
from store.errors import InvalidError, NotFoundError
from store.jobs import canonical
from store.tables import Device, DeviceClaim, Event, Flavor, Lease, Node, Price

LABELS_MAXIMUM = 64
NODES_MAXIMUM = 10_000  # the nodes of one page are named in one statement
MISSING = "missing"  # health_detail of a device that its node's last inventory did not name
GONE = "declared gone"  # health_detail of the devices of a node that an operator gave up (store/lost_nodes.py)
MISSING_INDEX_FIRST = 1_000  # a missing device whose index another has now is numbered from here
ASIDE_INDEX_FIRST = 2_000  # where indices are put while they are dealt out anew

_node = Node.__table__  # type: ignore[attr-defined]
_device = Device.__table__  # type: ignore[attr-defined]
_flavor = Flavor.__table__  # type: ignore[attr-defined]
_price = Price.__table__  # type: ignore[attr-defined]
_lease = Lease.__table__  # type: ignore[attr-defined]
_event = Event.__table__  # type: ignore[attr-defined]
_claim = DeviceClaim.__table__  # type: ignore[attr-defined]

_insert_flavor = {
    "sqlite": sqlite.insert(_flavor).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_flavor).on_conflict_do_nothing(),
}


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device and the lease that holds it, if any."""

    uuid: str
    node: str
    device_index: int
    gpu_model: str
    memory_bytes: int
    mode: str
    health: str
    health_detail: str | None
    is_simulated: bool
    lease_id: str | None


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node, what it has and how much of it is leased."""

    id: str
    name: str
    site: str
    rack: str | None
    gpu_model: str | None
    cpu_milli: int
    memory_bytes: int
    is_simulated: bool
    state: str  # ready | cordoned | draining | lost | gone
    isolation: str | None
    agent_version: str | None
    heartbeat_at_ms: int | None
    milli_gpu_total: int
    milli_gpu_leased: int
    devices: tuple[DeviceView, ...]
    labels: Mapping[str, str]
    taints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateNode:
    """A node that an agent will speak for. It takes no leases before its first inventory."""

    id: str
    name: str
    site: str
    rack: str | None
    now_ms: int

    def execute(self, connection: Connection, /) -> NodeView:
        """Return the node; ConflictError when the name is taken."""
        values = {"id": self.id, "name": self.name, "site": self.site, "rack": self.rack, "cpu_milli": 0, "memory_bytes": 0}
        defaults = {"is_simulated": False, "is_cordoned": False, "is_draining": False, "is_lost": False, "labels": "{}"}
        with duplicates.refused_as("node_exists", f"there is a node {self.name!r} already", field="name"):
            connection.execute(insert(_node), {**values, **defaults, "registered_at_ms": self.now_ms})
        return NodeByName(self.name).fetch(connection)


@dataclass(frozen=True, slots=True)
class SetNode:
    """Switch a node. Draining includes cordoning; undraining takes the cordon away unless it is asked for."""

    name: str
    is_cordoned: bool | None
    is_draining: bool | None
    now_ms: int
    user_id: str | None = None
    labels: Mapping[str, str | None] | None = None  # added to those that there are; None takes one away
    taints: Sequence[str] | None = None  # replaces all
    is_moved: bool = False
    rack: str | None = None  # with `is_moved`

    def execute(self, connection: Connection, /) -> NodeView:
        """Return the node as it is now; NotFoundError, InvalidError for too many labels."""
        row = connection.execute(select(_node).where(_node.c.name == self.name).with_for_update()).first()
        if row is None:
            raise no_node(self.name)
        values: dict[str, Any] = {}
        if self.is_draining is not None:
            values = {"is_draining": self.is_draining, "is_cordoned": self.is_draining}
        if self.is_cordoned is not None:
            values["is_cordoned"] = self.is_cordoned
        if self.labels is not None:
            merged = {**json.loads(row.labels), **self.labels}
            values["labels"] = json.dumps({key: value for key, value in sorted(merged.items()) if value is not None})
            if len(json.loads(values["labels"])) > LABELS_MAXIMUM:
                message = f"labels: a node has at most {LABELS_MAXIMUM} labels"
                raise InvalidError("too_many_labels", message, field="labels", limit=LABELS_MAXIMUM)
        if self.taints is not None:
            values["taints"] = json.dumps(sorted(set(self.taints)))
        if self.is_moved:
            values["rack"] = self.rack
        changed = {name: value for name, value in values.items() if value != getattr(row, name)}
        if changed:
            connection.execute(update(_node).where(_node.c.id == row.id).values(**changed))
            shown = {name: json.loads(value) if name in ("labels", "taints") else value for name, value in changed.items()}
            data = {"node": self.name, **shown}
            kind = operator_events.NODE_CHANGED
            operator_events.record(connection, kind, data, now_ms=self.now_ms, user_id=self.user_id, node_id=row.id)
        return NodeByName(self.name).fetch(connection)


@dataclass(frozen=True, slots=True)
class ReportedDevice:
    """A device as an agent reports it."""

    uuid: str
    device_index: int
    gpu_model: str
    memory_bytes: int
    cells: int
    is_simulated: bool


@dataclass(frozen=True, slots=True)
class AcceptInventory:
    """What a node has, as its agent says at its start. Devices that are gone stay as faulty rows: bills name them."""

    node: str
    boot_id: str
    agent_version: str
    cpu_milli: int
    memory_bytes: int
    isolation: str
    devices: Sequence[ReportedDevice]
    now_ms: int

    def execute(self, connection: Connection, /) -> NodeView:
        """Return the node; NotFoundError, InvalidError for devices that do not go together, ConflictError for another node's."""
        self._check()
        row = connection.execute(select(_node.c.id).where(_node.c.name == self.node)).first()
        if row is None:
            raise no_node(self.node)
        values = {
            "agent_boot_id": self.boot_id,
            "agent_version": self.agent_version,
            "cpu_milli": self.cpu_milli,
            "memory_bytes": self.memory_bytes,
            "isolation": self.isolation,
            "gpu_model": self.devices[0].gpu_model if self.devices else None,
            "is_simulated": any(device.is_simulated for device in self.devices),
            "is_lost": False,
            "declared_gone_at_ms": None,
            "heartbeat_at_ms": self.now_ms,
        }
        before = _seen_by_the_scheduler(connection, row.id)
        connection.execute(update(_node).where(_node.c.id == row.id).values(**values))
        self._keep_devices(connection, row.id)
        self._keep_flavors(connection)
        if _seen_by_the_scheduler(connection, row.id) == before:
            return NodeByName(self.node).fetch(connection)
        data = canonical({"boot_id": self.boot_id, "devices": len(self.devices)})
        connection.execute(insert(_event), {"at_ms": self.now_ms, "kind": "node_changed", "node_id": row.id, "data": data})
        return NodeByName(self.node).fetch(connection)

    def _check(self) -> None:
        for name in ("uuid", "device_index"):
            seen: set[object] = set()
            for position, device in enumerate(self.devices):
                value = getattr(device, name)
                if value in seen:
                    field = f"devices[{position}].{name}"
                    raise InvalidError("invalid_request", f"{field}: {value!r} is named twice", field=field)
                seen.add(value)
        for position, device in enumerate(self.devices):
            if device.gpu_model != self.devices[0].gpu_model:
                field = f"devices[{position}].gpu_model"
                message = f"{field}: {device.gpu_model!r} beside {self.devices[0].gpu_model!r}; a node has devices of one model"
                raise InvalidError("invalid_request", message, field=field, limit=self.devices[0].gpu_model)

    def _keep_devices(self, connection: Connection, node_id: str) -> None:
        present = {row.id: row for row in connection.execute(select(_device).where(_device.c.node_id == node_id))}
        missing = sorted(present.keys() - {device.uuid for device in self.devices})
        _make_room(connection, present, missing, self.devices)
        for device in self.devices:
            values = {
                "device_index": device.device_index,
                "gpu_model": device.gpu_model,
                "memory_bytes": device.memory_bytes,
                "cells": device.cells,
                "is_simulated": device.is_simulated,
            }
            known = present.get(device.uuid)
            if known is None:
                _add_device(connection, node_id, device.uuid, values)
            else:
                is_back = known.health_detail in (MISSING, GONE)
                back = {"health": DeviceHealth.HEALTHY.value, "health_detail": None} if is_back else {}
                connection.execute(update(_device).where(_device.c.id == device.uuid).values(**values, **back))
        if missing:
            gone = {"health": DeviceHealth.FAULTY.value, "health_detail": MISSING}
            connection.execute(update(_device).where(_device.c.id.in_(missing)).values(**gone))

    def _keep_flavors(self, connection: Connection) -> None:
        models = sorted({device.gpu_model for device in self.devices})
        rows = [{"name": model, "gpu_model": model, "mode": DeviceMode.WHOLE.value, "milli_gpu": MILLI_GPU_PER_DEVICE} for model in models]
        if rows:
            connection.execute(_insert_flavor[connection.dialect.name], rows)


def _seen_by_the_scheduler(connection: Connection, node_id: str) -> object:
    """Return everything of a node and its devices but when its agent was last heard."""
    node = connection.execute(select(_node).where(_node.c.id == node_id)).mappings().one()
    devices = connection.execute(select(_device).where(_device.c.node_id == node_id).order_by(_device.c.id)).all()
    return {**node, "heartbeat_at_ms": node["heartbeat_at_ms"] is not None}, devices


def _make_room(connection: Connection, present: Mapping[str, Any], missing: Sequence[str], devices: Sequence[ReportedDevice]) -> None:
    """Take indices from those that had them before, when others have them now: a device that fell off the bus shifts those behind it."""
    holders = {row.device_index: row.id for row in present.values()}
    if all(holders.get(device.device_index, device.uuid) == device.uuid for device in devices):
        return
    for first, names in ((ASIDE_INDEX_FIRST, sorted(present)), (MISSING_INDEX_FIRST, missing)):
        for index, uuid in enumerate(names, start=first):
            connection.execute(update(_device).where(_device.c.id == uuid).values(device_index=index))


def _add_device(connection: Connection, node_id: str, uuid: str, values: Mapping[str, Any]) -> None:
    """Insert a device, or move one that is missing where it was and that nobody holds; ConflictError for one that another node has."""
    free = and_(_device.c.id == uuid, _device.c.health_detail == MISSING, ~exists().where(_claim.c.device_id == uuid))
    fresh = {**values, "node_id": node_id, "health": DeviceHealth.HEALTHY.value, "health_detail": None}
    if connection.execute(update(_device).where(free).values(**fresh)).rowcount == 1:
        return
    with duplicates.refused_as("device_elsewhere", f"device {uuid!r} belongs to another node", field="devices"):
        connection.execute(insert(_device), {**fresh, "id": uuid, "mode": DeviceMode.WHOLE.value})


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes in order of name, after `after`, at most `limit`."""

    after: str = ""
    limit: int = NODES_MAXIMUM

    def fetch(self, connection: Connection, /) -> tuple[NodeView, ...]:
        """Return them with their devices."""
        rows = connection.execute(select(_node).where(_node.c.name > self.after).order_by(_node.c.name).limit(self.limit)).all()
        devices = _devices(connection, {row.id: row.name for row in rows})
        return tuple(_node_view(row, devices.get(row.id, ())) for row in rows)


@dataclass(frozen=True, slots=True)
class NodeByName:
    """One node."""

    name: str

    def fetch(self, connection: Connection, /) -> NodeView:
        """Return it with its devices; NotFoundError."""
        row = connection.execute(select(_node).where(_node.c.name == self.name)).first()
        if row is None:
            raise no_node(self.name)
        return _node_view(row, _devices(connection, {row.id: row.name}).get(row.id, ()))


def no_node(name: str) -> NotFoundError:
    """Return the refusal of a name that no node has."""
    return NotFoundError("node_not_found", f"there is no node {name!r}", field="node")


def _devices(connection: Connection, nodes: Mapping[str, str]) -> dict[str, tuple[DeviceView, ...]]:
    holder = _device.outerjoin(_claim, and_(_claim.c.device_id == _device.c.id, _claim.c.cell == 0))
    statement = select(_device, _claim.c.lease_id).select_from(holder).where(_device.c.node_id.in_(list(nodes)))
    found: dict[str, list[DeviceView]] = {}
    for row in connection.execute(statement.order_by(_device.c.node_id, _device.c.device_index)):
        view = DeviceView(
            row.id, nodes[row.node_id], row.device_index, row.gpu_model, row.memory_bytes, row.mode, row.health, row.health_detail,
            row.is_simulated, row.lease_id,
        )  # fmt: skip
        found.setdefault(row.node_id, []).append(view)
    return {node_id: tuple(views) for node_id, views in found.items()}


def _node_view(row: Any, devices: Sequence[DeviceView]) -> NodeView:
    switches = (
        ("gone", row.declared_gone_at_ms is not None),
        ("lost", row.is_lost or row.heartbeat_at_ms is None),
        ("draining", row.is_draining),
        ("cordoned", row.is_cordoned),
    )
    return NodeView(
        id=row.id,
        name=row.name,
        site=row.site,
        rack=row.rack,
        gpu_model=row.gpu_model,
        cpu_milli=row.cpu_milli,
        memory_bytes=row.memory_bytes,
        is_simulated=row.is_simulated,
        state=next((name for name, is_on in switches if is_on), "ready"),
        isolation=row.isolation,
        agent_version=row.agent_version,
        heartbeat_at_ms=row.heartbeat_at_ms,
        milli_gpu_total=len(devices) * MILLI_GPU_PER_DEVICE,
        milli_gpu_leased=sum(MILLI_GPU_PER_DEVICE for device in devices if device.lease_id is not None),
        devices=tuple(devices),
        labels=json.loads(row.labels),
        taints=tuple(json.loads(row.taints)),
    )


@dataclass(frozen=True, slots=True)
class FlavorView:
    """A flavor and its list price now."""

    name: str
    gpu_model: str
    mode: str
    milli_gpu: int
    price_units_per_hour: int | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class Flavors:
    """Every flavor with its price in `currency` at `now_ms`."""

    currency: str
    now_ms: int

    def fetch(self, connection: Connection, /) -> tuple[FlavorView, ...]:
        """Return them in order of name."""
        in_force = and_(_price.c.currency == self.currency, _price.c.valid_from_ms <= self.now_ms)
        prices: dict[str, int] = {}
        for row in connection.execute(select(_price).where(in_force).order_by(_price.c.valid_from_ms)):
            prices[row.flavor] = row.units_per_hour
        return tuple(
            FlavorView(
                row.name, row.gpu_model, row.mode, row.milli_gpu, prices.get(row.name), self.currency if row.name in prices else None
            )
            for row in connection.execute(select(_flavor).order_by(_flavor.c.name))
        )


@dataclass(frozen=True, slots=True)
class PriceView:
    """A row of the price book."""

    id: str
    flavor: str
    currency: str
    units_per_hour: int
    valid_from_ms: int


@dataclass(frozen=True, slots=True)
class CreatePrice:
    """A list price from `valid_from_ms` on. It may not begin before now, nor before the end of a rated lease of the flavor."""

    id: str
    flavor: str
    currency: str
    units_per_hour: int
    valid_from_ms: int
    now_ms: int

    def execute(self, connection: Connection, /) -> PriceView:
        """Return the price; InvalidError for an unknown flavor or a start in the past, ConflictError for a start that is taken."""
        if connection.execute(select(_flavor.c.name).where(_flavor.c.name == self.flavor)).first() is None:
            known = list(connection.execute(select(_flavor.c.name).order_by(_flavor.c.name)).scalars())
            raise InvalidError("unknown_flavor", f"flavor: {self.flavor!r} is not one of {', '.join(known)}", field="flavor", limit=known)
        if self.valid_from_ms < self.now_ms:
            message = "valid_from: a price cannot begin in the past"
            raise InvalidError("price_in_the_past", message, field="valid_from", limit_ms=self.now_ms)
        values = {
            "id": self.id,
            "flavor": self.flavor,
            "currency": self.currency,
            "units_per_hour": self.units_per_hour,
            "valid_from_ms": self.valid_from_ms,
            "created_at_ms": self.now_ms,
        }
        with duplicates.refused_as("price_exists", "valid_from: a price of this flavor begins then already", field="valid_from"):
            connection.execute(insert(_price), values)
        self._check_what_is_rated(connection)  # after the insert: by now nobody can store lines by the book without this price
        return PriceView(self.id, self.flavor, self.currency, self.units_per_hour, self.valid_from_ms)

    def _check_what_is_rated(self, connection: Connection) -> None:
        rated = select(_lease.c.ended_at_ms).where(_lease.c.rated_at_ms.is_not(None), _lease.c.flavor == self.flavor)
        newest_ms = connection.execute(rated.order_by(_lease.c.ended_at_ms.desc()).limit(1)).scalar_one_or_none()
        if newest_ms is not None and self.valid_from_ms < newest_ms:
            message = "valid_from: a price cannot begin before time that is rated already"
            raise InvalidError("price_in_the_past", message, field="valid_from", limit_ms=newest_ms)


@dataclass(frozen=True, slots=True)
class Prices:
    """The price book, in order of flavor, currency and start."""

    def fetch(self, connection: Connection, /) -> tuple[PriceView, ...]:
        """Return every row."""
        statement = select(_price.c.id, _price.c.flavor, _price.c.currency, _price.c.units_per_hour, _price.c.valid_from_ms)
        ordered = statement.order_by(_price.c.flavor, _price.c.currency, _price.c.valid_from_ms)
        return tuple(
            PriceView(row.id, row.flavor, row.currency, row.units_per_hour, row.valid_from_ms) for row in connection.execute(ordered)
        )
