"""Assignments that this node cannot or must not carry out end as any lease does, with the reason."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from agents.devices import Device
from agents.lease_runs import LeaseRun
from agents.roster import Roster
from agents.sandbox.spec import CheckpointError, LeaseSpec, SandboxError, SandboxEvent, SandboxHandle
from agents.simulated import SimulatedDeviceSet
from agents.spool import LeaseMemory
from agents.surroundings import Surroundings
from terrace.models.agents import AssignedSlice, Assignment
from tests.agents.node_world import NODE, World


class WithFiles(SimulatedDeviceSet):
    """Its devices have files below /dev, and the last is in MIG mode and not offered."""

    def inventory(self) -> tuple[Device, ...]:
        """Return the devices."""
        *others, last = (dataclasses.replace(device, node_path=f"/dev/nvidia{device.index}") for device in super().inventory())
        return *others, dataclasses.replace(last, is_mig_enabled=True)


class Unstartable:
    """A machine that refuses every lease, for a reason of its own, and remembers what it was asked for."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.specs: list[LeaseSpec] = []

    def start(self, spec: LeaseSpec, /) -> SandboxHandle:
        self.specs.append(spec)
        raise self.error

    def poll(self) -> list[SandboxEvent]:
        return []

    def stop(self, grace_ms: int, /) -> None:
        """There is nothing to stop."""

    def kill(self) -> None:
        """There is nothing to kill."""

    def discard(self) -> None:
        """There is nothing to delete."""


def assignment(slices: Sequence[AssignedSlice] = (), **changes: Any) -> Assignment:
    values: dict[str, Any] = {
        "lease_id": "lea_a",
        "job_id": "job_a",
        "attempt": 1,
        "tenant_id": "ten_a",
        "role": "head",
        "target": "run",
        "slices": list(slices),
        "cpu_milli": 1_000,
        "memory_bytes": 1 << 30,
        "replicas": 1,
        "gpus_per_replica": 1,
        "entrypoint": ["true"],
        "environment": {},
        "token": "token",
        "limit_ms": 1_000,
        "grace_ms": 1_000,
    }
    return Assignment(**{**values, **changes})


def mine(around: Surroundings, *indices: int) -> list[AssignedSlice]:
    devices = list(around.devices.values())
    return [AssignedSlice(device_uuid=devices[index].uuid, device_index=index, milli_gpu=1_000) for index in indices]


def around_of(world: World) -> Surroundings:
    return world.agent()._around


async def ended(around: Surroundings, item: Assignment) -> tuple[list[str], dict[str, Any]]:
    """Run the lease to its end; return the kinds of its reports and the data of the first."""
    around.spool.take(item.lease_id, [])
    await LeaseRun(item, around).run()
    reports = around.spool.oldest(reports_maximum=10, bytes_maximum=100_000)
    return [report.kind for report in reports], dict(reports[0].data)


@pytest.mark.parametrize(
    ("changes", "failure_class", "message"),
    [
        pytest.param({"role": "worker"}, "platform", "a gang over several machines needs a newer one", id="part of a gang"),
        pytest.param({"lease_id": "../out"}, "platform", "lease_id, job_id: name folders", id="a lease that is a path"),
        pytest.param({"job_id": "a/b"}, "platform", "lease_id, job_id: name folders", id="a job that is a path"),
        pytest.param(
            {"slices": [AssignedSlice(device_uuid="GPU-elsewhere", device_index=0, milli_gpu=1_000)]},
            "node",
            "device GPU-elsewhere is not on this node",
            id="a device of another node",
        ),
    ],
)
async def test_assignment_that_cannot_be_carried_out_ends_with_its_reason(
    changes: dict[str, Any], failure_class: str, message: str, world: World
) -> None:
    kinds, data = await ended(around_of(world), assignment(**changes))

    assert (kinds, data["exit_code"], data["failure_class"]) == (["exited", "gone"], None, failure_class)
    assert message in data["message"]


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [(SandboxError("no room"), "platform"), (CheckpointError("too deep"), "environment"), (OSError("disk on fire"), "platform")],
)
async def test_machine_that_refuses_says_whose_fault_it_is(error: Exception, failure_class: str, world: World) -> None:
    world.make_tree = lambda: Unstartable(error)
    around = around_of(world)

    kinds, data = await ended(around, assignment(mine(around, 0)))

    why = {"exit_code": None, "failure_class": failure_class, "message": str(error), "was_stopped": False}
    assert (kinds, data) == (["exited", "gone"], why)


async def test_files_of_all_other_devices_are_hidden_from_a_lease(world: World) -> None:
    machine = Unstartable(SandboxError("only asked"))
    world.make_tree = lambda: machine
    world.devices = WithFiles(NODE)
    around = around_of(world)

    await ended(around, assignment(mine(around, 2, 5)))

    assert machine.specs[0].hidden_device_paths == tuple(f"/dev/nvidia{number}" for number in (0, 1, 3, 4, 6, 7))


async def test_lease_that_was_taken_on_is_not_started_again(world: World) -> None:
    machine = Unstartable(SandboxError("only asked"))
    world.make_tree = lambda: machine
    around = around_of(world)
    around.spool.take("lea_a", [])

    roster = Roster(around)
    await roster.follow([assignment(mine(around, 0))])
    await roster.stop_all(grace_ms=0, seconds_maximum=5)

    assert (machine.specs, around.spool.memory_of("lea_a")[0]) == ([], LeaseMemory.TAKEN)


async def test_supervision_that_fails_costs_its_own_lease_only(world: World) -> None:
    world.make_tree = lambda: Unstartable(RuntimeError("a bug of ours"))
    around = around_of(world)

    roster = Roster(around)
    await roster.follow([assignment(mine(around, 0))])
    await asyncio.gather(*roster.tasks)

    reports = [(report.kind, dict(report.data)) for report in around.spool.oldest(reports_maximum=10, bytes_maximum=100_000)]
    assert reports == [("lost", {"message": "its supervision failed"}), ("gone", {})]
    assert not roster.failed.done()


async def test_spool_that_breaks_ends_the_agent(world: World) -> None:
    world.make_tree = lambda: Unstartable(SandboxError("no room"))
    around = around_of(world)
    roster = Roster(around)
    await roster.follow([assignment(mine(around, 0))])
    around.spool.close()

    await roster.stop_all(grace_ms=0, seconds_maximum=5)

    assert "closed database" in str(roster.failed.exception())
