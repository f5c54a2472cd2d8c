"""What a lease may use of its node when its job named no CPU or memory."""

from __future__ import annotations

from typing import Any

from agents import shares
from agents.shares import Machine
from terrace.models.agents import AssignedSlice, Assignment

GIB = 1 << 30
NODE = Machine(cpu_milli=96_000, memory_bytes=1_024 * GIB, devices=8)


def asked(gpus: int, **named: Any) -> Assignment:
    slices = [AssignedSlice(replica=0, device_uuid=f"GPU-{index}", device_index=index, milli_gpu=1_000) for index in range(gpus)]
    return Assignment.model_construct(slices=slices, **({"replicas": 1, "cpu_milli": 0, "memory_bytes": 0} | named))


def test_job_that_names_no_amount_gets_its_devices_share() -> None:
    assert shares.memory_bytes(asked(2), NODE) == 256 * GIB
    assert shares.cpu_milli(asked(2), NODE) == 24_000


def test_leases_on_all_devices_together_fit_the_node() -> None:
    assert sum(shares.memory_bytes(asked(gpus), NODE) for gpus in (1, 2, 5)) <= NODE.memory_bytes
    assert sum(shares.cpu_milli(asked(gpus), NODE) for gpus in (1, 2, 5)) <= NODE.cpu_milli


def test_what_a_job_names_is_used_as_named() -> None:
    named = asked(4, cpu_milli=500, memory_bytes=3 * GIB)
    assert (shares.cpu_milli(named, NODE), shares.memory_bytes(named, NODE)) == (500, 3 * GIB)


def test_job_without_gpus_gets_memory_by_its_cpus() -> None:
    assert shares.memory_bytes(asked(0, cpu_milli=12_000), NODE) == 128 * GIB
    assert shares.memory_bytes(asked(0, cpu_milli=200_000), NODE) == NODE.memory_bytes


def test_each_replica_has_a_cpu_to_be_scheduled_on() -> None:
    small = Machine(cpu_milli=2_000, memory_bytes=16 * GIB, devices=8)
    assert shares.cpu_milli(asked(2, replicas=2), small) == 2_000
