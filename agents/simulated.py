"""A simulated set of devices: H200 in shape, for machines without a driver.

Owns: the shape (memory, power, MIG table) and the arithmetic that turns a lease's real CPU time into utilisation, power
and energy. Does not own: reading that CPU time (processes.py) or deciding when to simulate (device_selection.py).
Everything here says that it is simulated: the UUIDs, the name and `is_simulated`.

Example: a lease on 2 devices that used 1,000 ms of CPU in 1,000 ms kept each device busy for 500 ms: 500 permille,
and 0.5 x (700 W - 75 W) above idle. One busy core per device is a fully busy device.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.devices import (
    DEVICES_PER_NODE_MAX,
    Device,
    DeviceFault,
    DeviceSample,
    MigProfile,
    MigTable,
    SystemInfo,
    UnknownDeviceError,
)

DEVICE_COUNT = 8
MODEL = "h200"
NAME = "NVIDIA H200 (simulated)"
IDLE_MILLIWATT = 75_000
FULL_MILLIWATT = 700_000
IDLE_CELSIUS = 30
FULL_CELSIUS = 70

_MIB = 1024 * 1024
MEMORY_BYTES = 143_771 * _MIB

# Profile, compute slices, memory slices, most instances, legal start cells. The "+me" variants share a placement with their
# plain profile and differ in media engines only, which nothing here asks for. Memory is the plain share of the cells; a
# real driver keeps a little of it back.
_CELLS = 8
_PROFILES = (
    ("1g.18gb", 1, 1, 7, (0, 1, 2, 3, 4, 5, 6)),
    ("1g.35gb", 1, 2, 4, (0, 2, 4, 6)),
    ("2g.35gb", 2, 2, 3, (0, 2, 4)),
    ("3g.71gb", 3, 4, 2, (0, 4)),
    ("4g.71gb", 4, 4, 1, (0,)),
    ("7g.141gb", 7, 8, 1, (0,)),
)
MIG_TABLE = MigTable(
    memory_slices=_CELLS,
    profiles=tuple(
        MigProfile(
            name=name,
            compute_slices=compute,
            memory_slices=memory,
            memory_bytes=MEMORY_BYTES * memory // _CELLS,
            instances_max=most,
            start_cells=starts,
        )
        for name, compute, memory, most, starts in _PROFILES
    ),
)

_NAMESPACE = uuid.UUID("5f2b9d0e-6d0c-5c39-9a43-2f0d3a1c7e11")


@dataclass(slots=True)
class _Feed:
    """What one lease was last seen to use of a device."""

    fed_at_ms: int
    cpu_time_ms: int = 0
    utilisation_permille: int = 0
    memory_bytes: int = 0
    process_ids: tuple[int, ...] = ()


@dataclass(slots=True)
class _State:
    """The moving part of one device; energy is kept in microjoules (milliwatt x millisecond), so nothing is rounded away."""

    energy_microjoule: int = 0
    counted_until_ms: int | None = None
    feeds: dict[str, _Feed] = field(default_factory=dict)
    fault: DeviceFault | None = None


class SimulatedDeviceSet:
    """`DeviceSet` whose devices exist only here. The same node name always gives the same UUIDs."""

    def __init__(self, node_name: str, *, device_count: int = DEVICE_COUNT) -> None:
        if not 1 <= device_count <= DEVICES_PER_NODE_MAX:
            raise ValueError(f"device_count: needs 1 to {DEVICES_PER_NODE_MAX} devices, got {device_count}")
        self._devices = tuple(_device(node_name, index) for index in range(device_count))
        self._states = {device.uuid: _State() for device in self._devices}

    @property
    def is_simulated(self) -> bool:
        """Always true."""
        return True

    def system(self) -> SystemInfo:
        """Return a system without a driver."""
        return SystemInfo(driver_version=None, nvml_version=None, cuda_version=None, is_simulated=True)

    def inventory(self) -> tuple[Device, ...]:
        """Return the devices in index order; they never change."""
        return self._devices

    def sample(self, now_ms: int) -> tuple[DeviceSample, ...]:
        """Return the state of every device at `now_ms`, its idle energy counted up to then."""
        return tuple(self._sample_one(device_uuid, state, now_ms) for device_uuid, state in self._states.items())

    def process_ids(self, device_uuid: str) -> tuple[int, ...] | None:
        """Return the processes that the holders of this device were last seen with; None while it has a fault."""
        state = self._state(device_uuid)
        return None if state.fault is not None else _process_ids(state)

    def feed(
        self, device_uuids: Sequence[str], *, lease_id: str, cpu_time_ms: int, memory_bytes: int, process_ids: tuple[int, ...], now_ms: int
    ) -> None:
        """Spread a lease's use over its devices: the CPU time since its last feed, its memory and its live processes.

        `cpu_time_ms` is cumulative over the lease's life. A device is never more than fully busy: what a burst uses
        above one core per device between two feeds is lost, as it would be on a saturated device.
        """
        states = [self._state(device_uuid) for device_uuid in device_uuids]
        for state in states:
            # A new lease's first feed covers the time since the device was last sampled.
            counted_ms = now_ms if state.counted_until_ms is None else state.counted_until_ms
            feed = state.feeds.setdefault(lease_id, _Feed(fed_at_ms=min(now_ms, counted_ms)))
            elapsed_ms = max(0, now_ms - feed.fed_at_ms)
            # A difference of shares, not a share of the difference: no millisecond is lost between two feeds.
            used_ms = max(0, cpu_time_ms // len(states) - feed.cpu_time_ms // len(states))
            busy_ms = min(used_ms, elapsed_ms)
            state.energy_microjoule += (FULL_MILLIWATT - IDLE_MILLIWATT) * busy_ms
            if elapsed_ms > 0:
                feed.utilisation_permille = busy_ms * 1000 // elapsed_ms
                feed.fed_at_ms = now_ms
                feed.cpu_time_ms = max(feed.cpu_time_ms, cpu_time_ms)
            feed.memory_bytes = memory_bytes // len(states)
            feed.process_ids = process_ids

    def forget(self, lease_id: str) -> None:
        """Return this lease's part of its devices to idle."""
        for state in self._states.values():
            state.feeds.pop(lease_id, None)

    def inject_fault(self, device_uuid: str, fault: DeviceFault | None) -> None:
        """Break one device, or mend it with None: how health handling is rehearsed without hardware."""
        self._state(device_uuid).fault = fault

    def close(self) -> None:
        """Do nothing: there is no driver to release."""

    def _state(self, device_uuid: str) -> _State:
        if device_uuid not in self._states:
            raise UnknownDeviceError(device_uuid)
        return self._states[device_uuid]

    def _sample_one(self, device_uuid: str, state: _State, now_ms: int) -> DeviceSample:
        _count_idle_energy(state, now_ms)
        if state.fault is not None:
            return DeviceSample(uuid=device_uuid, at_ms=now_ms, fault=state.fault)
        busy = min(1000, sum(feed.utilisation_permille for feed in state.feeds.values()))
        return DeviceSample(
            uuid=device_uuid,
            at_ms=now_ms,
            utilisation_permille=busy,
            memory_used_bytes=min(MEMORY_BYTES, sum(feed.memory_bytes for feed in state.feeds.values())),
            power_milliwatt=IDLE_MILLIWATT + (FULL_MILLIWATT - IDLE_MILLIWATT) * busy // 1000,
            energy_millijoule=state.energy_microjoule // 1000,
            temperature_celsius=IDLE_CELSIUS + (FULL_CELSIUS - IDLE_CELSIUS) * busy // 1000,
            process_ids=_process_ids(state),
            ecc_corrected=0,
            ecc_uncorrected=0,
        )


def _process_ids(state: _State) -> tuple[int, ...]:
    return tuple(sorted({process_id for feed in state.feeds.values() for process_id in feed.process_ids}))


def _count_idle_energy(state: _State, now_ms: int) -> None:
    # A clock that steps back adds nothing and takes nothing: the counter never runs backwards.
    if state.counted_until_ms is None:
        state.counted_until_ms = now_ms
    elapsed_ms = max(0, now_ms - state.counted_until_ms)
    state.energy_microjoule += IDLE_MILLIWATT * elapsed_ms
    state.counted_until_ms += elapsed_ms


def _device(node_name: str, index: int) -> Device:
    return Device(
        uuid=f"GPU-sim-{uuid.uuid5(_NAMESPACE, f'{node_name}/{index}')}",
        index=index,
        name=NAME,
        model=MODEL,
        memory_bytes=MEMORY_BYTES,
        serial=None,
        pci_bus_id=None,
        node_path=None,
        mig=MIG_TABLE,
        is_mig_enabled=False,
        is_simulated=True,
    )
