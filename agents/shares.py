"""What a lease may use of its node's CPU and memory when its job named no amount.

A job that asks for GPUs alone gets its devices' share of the machine, so that leases on all devices together fit the machine; a job without
GPUs gets memory by its share of the CPUs. What a job did name is used as named. Pure; called by lease_runs.py. Example: 2 of 8 devices on a
node of 1 TiB may use 256 GiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from terrace.models.agents import Assignment

MILLI_PER_CPU = 1_000


@dataclass(frozen=True, slots=True)
class Machine:
    """What leases share on this node. `devices` may be 0."""

    cpu_milli: int
    memory_bytes: int
    devices: int


def cpu_milli(asked: Assignment, machine: Machine) -> int:
    """Return the lease's milli-CPU: as named, else its share, at least one CPU per replica so that each of them can be scheduled."""
    if asked.cpu_milli:
        return asked.cpu_milli
    share = machine.cpu_milli * len(asked.slices) // machine.devices if machine.devices else 0
    return max(share, asked.replicas * MILLI_PER_CPU)


def memory_bytes(asked: Assignment, machine: Machine) -> int:
    """Return the lease's memory in bytes: as named, else its share."""
    if asked.memory_bytes:
        return asked.memory_bytes
    if asked.slices and machine.devices:
        return machine.memory_bytes * len(asked.slices) // machine.devices
    return machine.memory_bytes * min(asked.cpu_milli, machine.cpu_milli) // machine.cpu_milli
