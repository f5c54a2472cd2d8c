"""Totals per leased slice: what they count, when they start and end, and what resets them."""

from __future__ import annotations

import pytest

from agents import telemetry
from agents.devices import DeviceError, DeviceSample, UnknownDeviceError
from agents.idleness import NotIdleReason
from agents.processes import ProcessRow, ProcessTable
from agents.simulated import IDLE_MILLIWATT, SimulatedDeviceSet
from agents.telemetry import LeasedSlice, LeaseTableError, Snapshot, Telemetry
from tests.agents.conftest import NvmlBench

ROOT = 100


class LosesItsDriver(SimulatedDeviceSet):
    """Answers at the start, then fails as a whole."""

    def sample(self, now_ms: int) -> tuple[DeviceSample, ...]:
        raise DeviceError(f"no answer at {now_ms}")


class World:
    """A simulated node, a process table that the test writes, and the telemetry over both."""

    def __init__(self) -> None:
        self.devices = SimulatedDeviceSet("node-a")
        self.uuids = [device.uuid for device in self.devices.inventory()]
        self.table: ProcessTable = {ROOT: ProcessRow(ROOT, 1, 1, 0, 1 << 20)}
        self.telemetry = Telemetry(self.devices, node="node-a", read_table=lambda: self.table)

    def whole(self, index: int) -> LeasedSlice:
        return LeasedSlice(device_uuid=self.uuids[index], slice="whole", flavor="h200", milli_gpu=1000)

    def burn(self, cpu_time_ms: int) -> None:
        self.table = {ROOT: ProcessRow(ROOT, 1, 1, cpu_time_ms, 1 << 20)}

    def lease(self, *, now_ms: int, lease_id: str = "lea_a", index: int = 0) -> None:
        self.telemetry.bind(lease_id, [self.whole(index)], now_ms=now_ms)
        self.telemetry.attach(lease_id, root_process_id=ROOT)


@pytest.fixture
def world() -> World:
    return World()


def totals(snapshot: Snapshot) -> tuple[int, int | None, int | None]:
    (reading,) = snapshot.slices
    return reading.totals.leased_gpu_us, reading.totals.busy_gpu_ns, reading.totals.energy_microjoule


def test_totals_of_a_lease_start_at_zero_whatever_the_device_did_before(world: World) -> None:
    world.telemetry.sample(0)
    world.telemetry.sample(5_000)
    world.lease(now_ms=7_000)
    assert totals(world.telemetry.snapshot()) == (0, 0, 0)


def test_lease_is_measured_from_bind_to_release_to_the_millisecond(world: World) -> None:
    world.lease(now_ms=1_001)
    world.telemetry.sample(5_000)
    world.telemetry.release("lea_a", now_ms=6_123)
    assert totals(world.telemetry.snapshot()) == ((6_123 - 1_001) * 1_000, 0, (6_123 - 1_001) * IDLE_MILLIWATT)


def test_busy_time_follows_the_cpu_time_of_the_process_tree(world: World) -> None:
    world.lease(now_ms=0)
    world.burn(2_500)
    leased_gpu_us, busy_gpu_ns, _ = totals(world.telemetry.sample(5_000))
    assert (leased_gpu_us, busy_gpu_ns) == (5_000_000, 2_500_000_000)


def test_part_of_a_device_is_weighted_by_its_size(world: World) -> None:
    part = LeasedSlice(device_uuid=world.uuids[0], slice="1g.18gb@3", flavor="h200.1g.18gb", milli_gpu=125)
    world.telemetry.bind("lea_a", [part], now_ms=0)
    assert totals(world.telemetry.sample(8_000)) == (1_000_000, 0, 1_000 * IDLE_MILLIWATT)


def test_silence_longer_than_the_limit_is_counted_as_a_gap_not_as_use(world: World) -> None:
    world.lease(now_ms=0)
    snapshot = world.telemetry.sample(telemetry.GAP_MAX_MS + 1)
    assert (totals(snapshot)[0], snapshot.gap_count) == (0, 1)


def test_clock_that_steps_back_takes_nothing_away(world: World) -> None:
    world.lease(now_ms=10_000)
    before = totals(world.telemetry.sample(15_000))
    assert totals(world.telemetry.sample(3_000)) == before
    assert totals(world.telemetry.sample(16_000))[0] == 6_000_000


def test_ended_lease_lingers_unchanged_and_then_vanishes(world: World) -> None:
    world.lease(now_ms=0)
    world.telemetry.release("lea_a", now_ms=5_000)
    ended = totals(world.telemetry.snapshot())
    lingering = world.telemetry.sample(5_000 + telemetry.LINGER_MS - 1)
    assert (totals(lingering), lingering.slices[0].is_open) == (ended, False)
    assert world.telemetry.sample(5_000 + telemetry.LINGER_MS).slices == ()


def test_device_of_a_released_lease_is_idle_again(world: World) -> None:
    world.lease(now_ms=0)
    world.burn(5_000)
    world.telemetry.release("lea_a", now_ms=5_000)
    device = world.telemetry.sample(6_000).samples[0]
    assert (device.utilisation_permille, device.process_ids) == (0, ())


def test_ended_leases_that_linger_are_bounded_and_the_oldest_goes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "ENDED_LEASES_MAX", 1)
    for lease_id in ("lea_a", "lea_b"):
        world.lease(now_ms=0, lease_id=lease_id)
        world.telemetry.release(lease_id, now_ms=1_000)
    assert [lease.lease_id for lease in world.telemetry.snapshot().leases] == ["lea_b"]


@pytest.mark.stub
def test_energy_of_a_lease_survives_a_reload_of_the_driver(nvml_bench: NvmlBench) -> None:
    device = nvml_bench.state.devices[0]
    device.energy_millijoule = 9_000
    watched = Telemetry(nvml_bench.devices, node="node-a")
    watched.bind("lea_a", [LeasedSlice(watched.snapshot().devices[0].uuid, "whole", "h200", 1000)], now_ms=0)
    device.energy_millijoule = 10_000
    watched.sample(1_000)
    device.energy_millijoule = 300  # the counter began again at zero
    assert totals(watched.sample(2_000))[2] == 1_300_000


def test_next_lease_of_a_device_does_not_touch_the_totals_of_the_last(world: World) -> None:
    world.lease(now_ms=0)
    world.telemetry.release("lea_a", now_ms=5_000)
    world.lease(now_ms=6_000, lease_id="lea_b")
    by_lease = {reading.totals.lease_id: reading.totals.leased_gpu_us for reading in world.telemetry.sample(7_000).slices}
    assert by_lease == {"lea_a": 5_000_000, "lea_b": 1_000_000}


def test_binding_twice_and_releasing_twice_change_nothing(world: World) -> None:
    world.lease(now_ms=0)
    world.lease(now_ms=2_000)
    world.telemetry.release("lea_a", now_ms=5_000)
    world.telemetry.release("lea_a", now_ms=9_000)
    assert totals(world.telemetry.snapshot())[0] == 5_000_000


def test_device_is_not_free_while_the_tree_lives_and_free_when_it_is_gone(world: World) -> None:
    world.lease(now_ms=0)
    alive = world.telemetry.prove_idle("lea_a", now_ms=1_000)
    world.table = {}
    gone = world.telemetry.prove_idle("lea_a", now_ms=2_000)
    assert [obstacle.reason for obstacle in alive.obstacles] == [NotIdleReason.TREE_ALIVE, NotIdleReason.DEVICE_BUSY]
    assert gone.is_idle


def test_device_that_cannot_be_seen_is_an_obstacle_and_not_forgotten(world: World) -> None:
    proof = world.telemetry.prove_devices_idle([world.uuids[0], "GPU-gone"])

    assert [(obstacle.reason, obstacle.device_uuid) for obstacle in proof.obstacles] == [(NotIdleReason.DEVICE_UNKNOWN, "GPU-gone")]


def test_broken_collector_reports_failure_and_spares_the_others() -> None:
    broken = Telemetry(LosesItsDriver("node-a"), node="node-a")
    reports = {report.name: report.is_success for report in broken.sample(1_000).collectors}
    assert reports == {"processes": True, "devices": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"milli_gpu": 0}, "milli_gpu: needs 1 to 1000, got 0", id="no size"),
        pytest.param({"milli_gpu": 1001}, "milli_gpu: needs 1 to 1000, got 1001", id="more than a device"),
    ],
)
def test_slice_of_impossible_size_is_refused_and_enters_nothing(world: World, change: dict[str, int], message: str) -> None:
    slices = [LeasedSlice(**{"device_uuid": world.uuids[0], "slice": "whole", "flavor": "h200", **change})]  # type: ignore[arg-type]
    with pytest.raises(LeaseTableError, match=message):
        world.telemetry.bind("lea_a", slices, now_ms=0)
    assert world.telemetry.sample(1).slices == ()


def test_same_slice_twice_is_refused(world: World) -> None:
    with pytest.raises(LeaseTableError, match="named twice"):
        world.telemetry.bind("lea_a", [world.whole(0), world.whole(0)], now_ms=0)


def test_device_of_another_node_is_refused(world: World) -> None:
    with pytest.raises(UnknownDeviceError):
        world.telemetry.bind("lea_a", [LeasedSlice("GPU-elsewhere", "whole", "h200", 1000)], now_ms=0)


def test_lease_table_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "OPEN_LEASES_MAX", 1)
    world.lease(now_ms=0)
    with pytest.raises(LeaseTableError, match="OPEN_LEASES_MAX"):
        world.telemetry.bind("lea_b", [world.whole(1)], now_ms=0)


def test_unknown_root_process_and_unbound_lease_are_refused(world: World) -> None:
    with pytest.raises(LeaseTableError, match="lea_a is not bound"):
        world.telemetry.attach("lea_a", root_process_id=ROOT)
    world.lease(now_ms=0)
    with pytest.raises(LeaseTableError, match="there is no process 4"):
        world.telemetry.attach("lea_a", root_process_id=4)
