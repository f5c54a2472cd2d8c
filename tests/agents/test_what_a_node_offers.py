"""Which devices a node leases out, and on what terms its agent starts at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agents.devices import Device
from agents.sandbox import machine
from agents.sandbox.spec import Isolation, SandboxError
from agents.simulated import SimulatedDeviceSet
from tests.agents.node_world import NODE, World

OWN_USER = "isolation none: jobs run as the agent's own user and can read its key"


class CutUp(SimulatedDeviceSet):
    """Its first device is in MIG mode."""

    def inventory(self) -> tuple[Device, ...]:
        """Return the devices."""
        first, *others = super().inventory()
        return replace(first, is_mig_enabled=True, node_path="/dev/nvidia0"), *others


async def test_device_in_mig_mode_is_not_offered_and_not_seen_by_leases(world: World) -> None:
    world.devices = CutUp(NODE)
    first = world.devices.inventory()[0].uuid
    async with world.running():
        await world.until(world.device_is("healthy"))
        offered = [device["uuid"] for device in (await world.node())["devices"]]
        told = [data["device_uuid"] for data in await world.told("device_health")]

    assert (len(offered), first in offered, first in told) == (7, False, False)


@pytest.mark.parametrize(
    ("isolation", "is_root", "is_asked_for", "is_given", "warning"),
    [
        pytest.param(Isolation.NAMESPACES, False, False, False, None, id="with namespaces there is nothing to say"),
        pytest.param(Isolation.NONE, True, False, False, "isolation none: leases are kept apart by user ids only", id="by root"),
        pytest.param(Isolation.NONE, False, True, False, OWN_USER, id="asked for"),
        pytest.param(Isolation.NONE, False, False, True, OWN_USER, id="one person's own machine"),
    ],
)
def test_agent_says_at_its_start_what_keeps_leases_apart(
    isolation: Isolation, is_root: bool, is_asked_for: bool, is_given: bool, warning: str | None
) -> None:
    said = machine.trust_needed(isolation, is_asked_for=is_asked_for, is_root=is_root, is_given=is_given)

    assert (said is None) == (warning is None)
    assert (said or "").startswith(warning or "")


def test_agent_refuses_to_run_strangers_code_as_its_own_user() -> None:
    with pytest.raises(SandboxError, match=r"isolation: this machine gives leases no namespaces .* set isolation to none if everybody"):
        machine.trust_needed(Isolation.NONE, is_asked_for=False, is_root=False, is_given=False)
