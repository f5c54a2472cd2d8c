"""Windows in virtual time: they begin, end, repeat, and what nobody used of them is written down."""

from __future__ import annotations

import pytest

from scheduler.sim import reading
from scheduler.sim.problems import ScenarioError
from tests.sim.scenarios import WORLD, decided, simulated

TWO = WORLD + "  - {name: b, quota: {h200: {nominal: 8}}}\n"
CONTEST = "capacity_reservations: [{name: c, tenant: a, start: 100, end: 200, gpu_model: h200, gpus: 8}]"


def test_job_of_somebody_else_waits_out_the_window() -> None:
    found = simulated(CONTEST, "jobs: [{id: y, tenant: b, at: 50, run: 10, limit: 60}]", world=TWO)
    assert found["jobs"]["y"]["started"] == 200.0


def test_tenant_starts_in_its_window_and_the_rest_is_unused() -> None:
    jobs = "jobs: [{id: x, tenant: a, at: 120, gpus: 4, run: 50, limit: 60}, {id: y, tenant: b, at: 300, run: 1}]"
    found = simulated(CONTEST, jobs, world=TWO)
    assert found["jobs"]["x"]["started"] == 120.0
    # 800 GPU-seconds were set aside, 4 GPUs were used for 50 seconds.
    assert found["capacity_reservations"] == {"c": {"reserved_gpu_seconds": 800.0, "unused_gpu_seconds": 600.0}}


def test_window_repeats_until_its_time() -> None:
    window = CONTEST.replace("end: 200", "end: 200, repeat_every: 200, repeat_until: 400")
    found = simulated(window, "jobs: [{id: y, tenant: b, at: 150, run: 10, limit: 150}, {id: z, tenant: b, at: 450, run: 1}]", world=TWO)
    # Between the windows, 200 to 300, there is no room for a limit of 150; after 400 there are no more.
    assert found["jobs"]["y"]["started"] == 400.0
    assert found["capacity_reservations"]["c"]["reserved_gpu_seconds"] == 1600.0


def test_maintenance_ends_by_itself() -> None:
    found = simulated("maintenance_windows: [{name: m, nodes: [n], start: 0, end: 60}]", "jobs: [{id: x, tenant: a, run: 5}]")
    assert found["jobs"]["x"]["started"] == 60.0


def test_late_job_leaves_for_the_tenant_when_the_window_begins() -> None:
    running = "running: [{id: r, tenant: b, gpus: 8, started: 0, run: 500}]"
    found = simulated(CONTEST, running, "jobs: [{id: x, tenant: a, at: 10, gpus: 8, run: 20, limit: 30}]", world=TWO)
    assert (found["jobs"]["x"]["started"], found["jobs"]["r"]["preempted_by"]) == (100.0, ["x"])


def test_decide_says_why_it_is_closed() -> None:
    (entry,) = decided("  - {name: b, quota: {h200: {nominal: 8}}}", CONTEST, "jobs: [{id: y, tenant: b, limit: 300}]")["waiting"]
    assert (entry["code"], entry["forecast_start"]) == ("capacity_reserved", 200.0)


def test_labels_taints_and_closeness_are_read() -> None:
    world = WORLD.replace("gpus: 8,", "gpus: 8, nvlink: 4, labels: {disk: fast}, taints: [spot],")
    jobs = "jobs: [{id: x, tenant: a, gpus: 4, tolerates: [spot], node_labels: {disk: fast}, within: island, prefer_sites: [hanoi]}]"
    found = simulated(jobs, "  # ", world=world)
    assert [piece["device"] for piece in found["jobs"]["x"]["slices"]] == [0, 1, 2, 3]
    assert simulated("jobs: [{id: x, tenant: a}]", world=world)["jobs"]["x"]["code"] == "exceeds_maximum"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        pytest.param(CONTEST.replace("end: 200", "end: 200, repeat_every: 200"), "repeat_every: stands together", id="no last repetition"),
        pytest.param(
            CONTEST.replace("end: 200", "end: 200, repeat_every: 50, repeat_until: 900"), "repeat_every: is shorter", id="overlaps itself"
        ),
        pytest.param(
            CONTEST.replace("end: 200", "end: 200, repeat_every: 100, repeat_until: 9000000"), "repeat_until: makes more", id="too many"
        ),
        pytest.param(
            "maintenance_windows: [{name: m, nodes: [q], start: 0, end: 9}]", r"nodes\[0\]: there is no node q", id="missing node"
        ),
        pytest.param("jobs: [{id: x, tenant: a, deny_sites: [hue]}]", "deny_sites: there is no site hue", id="missing site"),
    ],
)
def test_windows_and_places_that_make_no_sense_are_refused(part: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        reading.read(TWO + part)
