"""`terraced decide` on scenarios: the printed answer, in the file's own units."""

from __future__ import annotations

import pytest

from scheduler.sim import reading
from scheduler.sim.answers import answer
from scheduler.sim.problems import ScenarioError, UnsupportedError
from tests.sim.scenarios import WORLD, decided


def test_answer_has_the_printed_form() -> None:
    found = decided("jobs: [{id: x, tenant: a, gpus: 2}]")
    pieces = [{"replica": 0, "node": "n", "device": device, "milli_gpu": 1000} for device in (0, 1)]
    start = {"job": "x", "attempt": 1, "borrowed": {}, "slices": pieces}
    assert found == {"scenario": 1, "now": 0.0, "starts": [start], "preempt": [], "waiting": []}


def test_waiting_job_has_code_numbers_and_forecast() -> None:
    found = decided("running: [{id: r, tenant: a, gpus: 8, started: -60, limit: 660}]", "jobs: [{id: x, tenant: a}]")
    (entry,) = found["waiting"]
    assert (entry["job"], entry["code"], entry["forecast_start"]) == ("x", "quota_exceeded", 600.0)
    assert entry["data"]["available_milli_gpu"] == 0


def test_job_submitted_later_is_ignored() -> None:
    found = decided("jobs: [{id: x, tenant: a, at: 0.001}, {id: y, tenant: a, at: -5}]")
    assert [start["job"] for start in found["starts"]] == ["y"]
    assert found["waiting"] == []


def test_count_makes_numbered_jobs_and_every_sets_them_apart() -> None:
    found = decided("jobs: [{id: x, tenant: a, at: 0, count: 3, every: 2}, {id: y, tenant: a, count: 1}]", "now: 2")
    assert [start["job"] for start in found["starts"]] == ["x-0", "x-1", "y"]


def test_job_waits_for_the_jobs_that_it_depends_on() -> None:
    found = decided("jobs: [{id: x, tenant: a, count: 2}, {id: y, tenant: a, depends_on: [x]}]")
    (entry,) = found["waiting"]
    assert (entry["code"], entry["data"]) == ("dependency", {"depends_on": ["x-0", "x-1"]})


def test_waiting_jobs_are_listed_in_the_order_of_the_file() -> None:
    found = decided("jobs: [{id: x, tenant: a, gpus: 9}, {id: y, tenant: a, gpus: 16, priority: 5}, {id: z, tenant: a, gpus: 10}]")
    assert [entry["job"] for entry in found["waiting"]] == ["x", "y", "z"]


def test_running_job_without_a_place_does_not_take_a_named_one() -> None:
    running = "running: [{id: r, tenant: a, started: 0, gpus: 7}, {id: s, tenant: a, started: 0, node: n, devices: [0]}]"
    found = decided(running, "jobs: [{id: x, tenant: a}]")
    assert [entry["code"] for entry in found["waiting"]] == ["quota_exceeded"]


def test_running_jobs_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ScenarioError, match=r"running\[1\]: does not fit"):
        decided("running: [{id: r, tenant: a, started: 0, gpus: 8}, {id: s, tenant: a, started: 0}]")


def test_running_over_quota_is_legal() -> None:
    found = decided("  - {name: b, quota: {h200: {nominal: 1}}}", "running: [{id: r, tenant: b, gpus: 4, started: 0}]")
    assert found["waiting"] == []


def test_any_model_takes_what_the_tenant_may_have() -> None:
    text = WORLD.replace("nodes:", "nodes:\n  - {name: m, gpu_model: l40s, gpus: 8}") + "jobs: [{id: x, tenant: a, gpu_model: any}]"
    (start,) = answer(reading.read(text))["starts"]
    assert start["slices"][0]["node"] == "n"


def test_event_before_now_has_happened() -> None:
    found = decided("events: [{at: -5, drain: n}]", "jobs: [{id: x, tenant: a}]")
    assert [entry["code"] for entry in found["waiting"]] == ["no_capacity"]


def test_job_without_gpus_names_the_node_of_each_replica() -> None:
    (start,) = decided("jobs: [{id: x, tenant: a, gpus: 0, cpus: 1, replicas: 2}]")["starts"]
    assert start["slices"] == [{"replica": replica, "node": "n", "device": None, "milli_gpu": 0} for replica in (0, 1)]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        pytest.param("jobs: [{id: x, tenant: a, gpus: 0.5}]", "jobs[0].gpus", id="shared slices"),
        pytest.param("jobs: [{id: x, tenant: a, slice: 1g.18gb}]", "jobs[0].slice", id="MIG slices"),
        pytest.param("policy: {repack: {max_moved_ratio: 0.1}}", "policy.repack.max_moved_ratio", id="repacking"),
        pytest.param("generate: [{trace: openb}]", "generate[0]", id="generated jobs"),
    ],
)
def test_what_the_core_cannot_decide_is_refused_by_its_path(part: str, path: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        decided(part)
    assert str(caught.value) == f"{path}: not supported yet"
