"""What every device set promises, whatever stands behind it."""

from __future__ import annotations

import dataclasses

import pytest

from agents import devices, idleness
from agents.devices import DeviceSample, FaultCode, UnknownDeviceError
from agents.idleness import NotIdleReason
from domain.slices import DeviceHealth
from tests.agents.conftest import Bench


def test_inventory_lists_eight_h200_in_index_order(bench: Bench) -> None:
    inventory = bench.devices.inventory()
    assert [device.index for device in inventory] == list(range(8))
    assert {(device.model, device.memory_bytes) for device in inventory} == {("h200", 143_771 * 1024 * 1024)}
    assert len({device.uuid for device in inventory}) == 8


def test_every_device_says_the_same_about_being_simulated_as_its_set(bench: Bench) -> None:
    assert {device.is_simulated for device in bench.devices.inventory()} == {bench.devices.is_simulated}
    assert bench.devices.system().is_simulated == bench.devices.is_simulated


def test_mig_sizes_in_milli_gpu_follow_the_memory_slices(bench: Bench) -> None:
    mig = bench.devices.inventory()[0].mig
    assert mig is not None
    sizes = {profile.name: (mig.milli_gpu(profile), profile.instances_max, len(profile.start_cells)) for profile in mig.profiles}
    assert (sizes["1g.18gb"], sizes["7g.141gb"]) == ((125, 7, 7), (1000, 1, 1))


def test_idle_device_reports_zero_use_and_no_process(bench: Bench) -> None:
    sample = bench.devices.sample(1_000)[0]
    assert (sample.utilisation_permille, sample.memory_used_bytes, sample.power_milliwatt, sample.process_ids) == (0, 0, 75_000, ())
    assert devices.health(sample) is DeviceHealth.HEALTHY


def test_busy_device_reports_use_power_memory_and_processes(bench: Bench) -> None:
    bench.devices.sample(0)
    bench.work(process_ids=(41, 42), from_ms=0, to_ms=1_000)
    busy, neighbour = bench.devices.sample(1_000)[:2]
    assert (busy.utilisation_permille, busy.power_milliwatt, busy.memory_used_bytes) == (1_000, 700_000, 1 << 30)
    assert (busy.process_ids, neighbour.utilisation_permille) == ((41, 42), 0)


def test_energy_grows_with_work_and_never_runs_backwards(bench: Bench) -> None:
    energies = [bench.devices.sample(0)[0].energy_millijoule]
    bench.work(process_ids=(41,), from_ms=0, to_ms=1_000)
    energies += [bench.devices.sample(now_ms)[0].energy_millijoule for now_ms in (1_000, 500, 2_000)]
    numbers = [energy for energy in energies if energy is not None]
    assert numbers == sorted(numbers)
    assert numbers[1] - numbers[0] == 700_000


def test_lost_device_yields_a_fault_without_readings_and_leaves_the_others_alone(bench: Bench) -> None:
    bench.lose()
    lost, neighbour = bench.devices.sample(1_000)[:2]
    assert lost.fault is not None
    assert (lost.fault.code, devices.health(lost)) == (FaultCode.LOST, DeviceHealth.FAULTY)
    readings = {field.name for field in dataclasses.fields(DeviceSample)} - {"uuid", "at_ms", "fault"}
    assert {getattr(lost, name) for name in readings} == {None}
    assert devices.health(neighbour) is DeviceHealth.HEALTHY


def test_device_is_proven_free_only_after_its_processes_left(bench: Bench) -> None:
    device_uuid = bench.devices.inventory()[0].uuid
    bench.work(process_ids=(41,), from_ms=0, to_ms=1_000)
    busy = idleness.prove(bench.devices, [device_uuid], live_process_ids=())
    bench.rest()
    free = idleness.prove(bench.devices, [device_uuid], live_process_ids=())
    assert [(obstacle.reason, obstacle.process_ids) for obstacle in busy.obstacles] == [(NotIdleReason.DEVICE_BUSY, (41,))]
    assert free.is_idle


def test_lost_device_is_never_proven_free(bench: Bench) -> None:
    bench.work(process_ids=(41,), from_ms=0, to_ms=1_000)
    bench.rest()
    bench.lose()
    proof = idleness.prove(bench.devices, [bench.devices.inventory()[0].uuid], live_process_ids=())
    assert [obstacle.reason for obstacle in proof.obstacles] == [NotIdleReason.DEVICE_SILENT]


def test_lost_device_stays_in_the_inventory(bench: Bench) -> None:
    before = bench.devices.inventory()
    bench.lose()
    assert bench.devices.inventory() == before


def test_live_process_tree_keeps_an_idle_device_from_being_free(bench: Bench) -> None:
    proof = idleness.prove(bench.devices, [bench.devices.inventory()[0].uuid], live_process_ids=(7,))
    assert [obstacle.reason for obstacle in proof.obstacles] == [NotIdleReason.TREE_ALIVE]


def test_device_of_another_node_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(UnknownDeviceError, match="GPU-elsewhere"):
        bench.devices.process_ids("GPU-elsewhere")


def test_set_may_be_closed_twice(bench: Bench) -> None:
    bench.devices.close()
    bench.devices.close()
