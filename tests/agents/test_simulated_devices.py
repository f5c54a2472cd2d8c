"""How simulated utilisation and energy follow a lease's CPU time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import devices
from agents.simulated import FULL_MILLIWATT, IDLE_MILLIWATT, SimulatedDeviceSet


def feed(simulated: SimulatedDeviceSet, count: int, *, cpu_time_ms: int, now_ms: int, lease_id: str = "lea_a") -> None:
    uuids = [device.uuid for device in simulated.inventory()[:count]]
    simulated.feed(uuids, lease_id=lease_id, cpu_time_ms=cpu_time_ms, memory_bytes=0, process_ids=(), now_ms=now_ms)


def test_node_name_alone_decides_the_uuids() -> None:
    first, again, other = (SimulatedDeviceSet(name).inventory() for name in ("node-a", "node-a", "node-b"))
    assert first == again
    assert {device.uuid for device in first}.isdisjoint(device.uuid for device in other)


def test_every_simulated_device_is_labelled_in_uuid_and_name() -> None:
    labels = [(device.uuid.startswith("GPU-sim-"), "simulated" in device.name) for device in SimulatedDeviceSet("node-a").inventory()]
    assert labels == [(True, True)] * 8


def test_one_busy_core_on_two_devices_is_half_busy_each() -> None:
    simulated = SimulatedDeviceSet("node-a")
    simulated.sample(0)
    feed(simulated, 2, cpu_time_ms=1_000, now_ms=1_000)
    assert [sample.utilisation_permille for sample in simulated.sample(1_000)[:3]] == [500, 500, 0]


def test_energy_is_idle_power_plus_the_busy_share() -> None:
    simulated = SimulatedDeviceSet("node-a")
    simulated.sample(0)
    feed(simulated, 2, cpu_time_ms=1_000, now_ms=1_000)
    assert simulated.sample(1_000)[0].energy_millijoule == IDLE_MILLIWATT + (FULL_MILLIWATT - IDLE_MILLIWATT) // 2


def test_more_cpu_than_devices_is_capped_at_fully_busy() -> None:
    simulated = SimulatedDeviceSet("node-a")
    simulated.sample(0)
    feed(simulated, 1, cpu_time_ms=9_000, now_ms=1_000)
    sample = simulated.sample(1_000)[0]
    assert (sample.utilisation_permille, sample.power_milliwatt, sample.energy_millijoule) == (1_000, FULL_MILLIWATT, FULL_MILLIWATT)


def test_two_leases_on_one_device_add_up() -> None:
    simulated = SimulatedDeviceSet("node-a")
    simulated.sample(0)
    feed(simulated, 1, cpu_time_ms=300, now_ms=1_000, lease_id="lea_a")
    feed(simulated, 1, cpu_time_ms=200, now_ms=1_000, lease_id="lea_b")
    assert simulated.sample(1_000)[0].utilisation_permille == 500


def test_forgotten_lease_leaves_the_device_idle_with_its_energy_kept() -> None:
    simulated = SimulatedDeviceSet("node-a")
    simulated.sample(0)
    feed(simulated, 1, cpu_time_ms=1_000, now_ms=1_000)
    before = simulated.sample(1_000)[0].energy_millijoule
    simulated.forget("lea_a")
    assert (simulated.sample(1_000)[0].utilisation_permille, simulated.sample(1_000)[0].energy_millijoule) == (0, before)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)), min_size=1, max_size=12))
def test_energy_of_an_unsaturated_lease_does_not_depend_on_how_often_it_is_fed(steps: list[tuple[int, int]]) -> None:
    often, once = SimulatedDeviceSet("node-a"), SimulatedDeviceSet("node-a")
    often.sample(0)
    once.sample(0)
    now_ms = cpu_time_ms = 0
    for elapsed_ms, used_ms in steps:
        now_ms, cpu_time_ms = now_ms + elapsed_ms, cpu_time_ms + min(used_ms, elapsed_ms)
        feed(often, 1, cpu_time_ms=cpu_time_ms, now_ms=now_ms)
    feed(once, 1, cpu_time_ms=cpu_time_ms, now_ms=now_ms)
    assert often.sample(now_ms)[0].energy_millijoule == once.sample(now_ms)[0].energy_millijoule


@pytest.mark.parametrize("count", [0, devices.DEVICES_PER_NODE_MAX + 1])
def test_impossible_device_count_is_refused_by_field_and_limit(count: int) -> None:
    with pytest.raises(ValueError, match=r"device_count: needs 1 to 64"):
        SimulatedDeviceSet("node-a", device_count=count)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("", "unknown"),
    ],
)
def test_gpu_model_is_read_from_the_product_name(name: str, model: str) -> None:
    assert devices.model_of(name) == model
