"""A device that somebody still uses after its lease: quarantined and not free, however long it takes, and free when it is idle."""

from __future__ import annotations

import pytest

from agents.devices import DeviceFault, FaultCode
from agents.simulated import SimulatedDeviceSet
from tests.agents.node_world import NODE, World

SHORT = "print('ran', flush=True)"


class StaysBusy(SimulatedDeviceSet):
    """Says that a stranger uses the devices named; all others answer that they are idle, those with a fault too."""

    def __init__(self) -> None:
        super().__init__(NODE)
        self.busy: set[str] = set()
        self.silent: set[str] = set()

    def process_ids(self, device_uuid: str) -> tuple[int, ...] | None:
        """Return a stranger's process for a busy device, None for a silent one."""
        if device_uuid in self.silent:
            return None
        return (4_242,) if device_uuid in self.busy else ()


@pytest.fixture
def devices(world: World) -> StaysBusy:
    world.devices = found = StaysBusy()
    return found


async def health(world: World, index: int = 0) -> tuple[str, str | None, bool]:
    """Return (health, detail, whether it is leased) of a device as an operator sees it."""
    device = (await world.node())["devices"][index]
    return device["health"], device["health_detail"], device["lease_id"] is not None


@pytest.mark.parametrize("trouble", ["busy", "silent"])
async def test_device_that_is_not_idle_is_quarantined_and_its_lease_not_released(trouble: str, world: World, devices: StaysBusy) -> None:
    everything = {device.uuid for device in devices.inventory()}
    getattr(devices, trouble).update(everything)
    job_id = await world.submit(SHORT)
    async with world.running(suspect_after_ms=0):
        job = await world.until(world.has_ended(job_id))
        await world.until(world.device_is("quarantined"))
        held, observed = await health(world), await world.observed(await world.lease_of(job_id))
        getattr(devices, trouble).clear()
        await world.until(world.is_free)
        await world.until(world.device_is("healthy"))

    assert job["state"] == "succeeded"
    assert held == ("quarantined", "not idle after its lease ended", True)
    assert observed == ["started", "exited"]
    assert await world.observed(await world.lease_of(job_id)) == ["started", "exited", "gone"]


async def test_device_that_broke_meanwhile_is_not_called_healthy_when_it_is_idle(world: World, devices: StaysBusy) -> None:
    first = devices.inventory()[0].uuid
    devices.busy.add(first)
    job_id = await world.submit(SHORT)
    async with world.running(suspect_after_ms=0):
        await world.until(world.has_ended(job_id))
        await world.until(world.device_is("quarantined"))
        devices.inject_fault(first, DeviceFault(FaultCode.XID, 79))
        devices.busy.clear()
        await world.until(world.is_free)
        await world.until(world.device_is("faulty"))
        found = await health(world)

    assert found == ("faulty", "xid 79", False)


async def test_fault_and_recovery_of_a_device_are_told_once_each(world: World, devices: StaysBusy) -> None:
    first = devices.inventory()[0].uuid
    async with world.running():
        await world.until(world.device_is("healthy"))
        devices.inject_fault(first, DeviceFault(FaultCode.ECC, 3))
        await world.until(world.device_is("faulty"))
        broken = await health(world)
        devices.inject_fault(first, None)
        await world.until(world.device_is("healthy"))

    assert broken == ("faulty", "ecc 3", False)


async def test_device_of_an_earlier_lease_that_cannot_be_seen_any_more_is_not_proven_free(world: World, devices: StaysBusy) -> None:
    job_id = await world.submit("import signal; signal.pause()", maximum_attempts=1)
    async with world.running(stop_seconds_maximum=0.0):
        await world.until(world.state_is(job_id, "running"))
    lease_id = await world.lease_of(job_id)

    world.devices = SimulatedDeviceSet(f"{NODE}-without")  # every device has another name
    async with world.running():
        await world.until(world.has_ended(job_id))
        await world.until(world.has_been_asked(5))
        without = await world.observed(lease_id)
    world.devices = devices
    async with world.running():
        await world.until(world.is_free)

    assert ("gone" in without, (await world.observed(lease_id))[-1]) == (False, "gone")


async def test_quarantine_of_an_earlier_life_ends_when_the_next_one_sees_the_device_idle(world: World, devices: StaysBusy) -> None:
    devices.busy.add(devices.inventory()[0].uuid)
    job_id = await world.submit(SHORT)
    async with world.running(suspect_after_ms=0, stop_seconds_maximum=0.2):
        await world.until(world.has_ended(job_id))
        await world.until(world.device_is("quarantined"))
    still_held = not await world.is_free()

    devices.busy.clear()
    async with world.running():
        await world.until(world.is_free)
        await world.until(world.device_is("healthy"))

    assert still_held
