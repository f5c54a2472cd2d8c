"""What a scenario may not say: each error names the path of the field."""

from __future__ import annotations

import pytest

from scheduler.sim import reading
from scheduler.sim.problems import ScenarioError
from tests.sim.scenarios import WORLD

JOB = "jobs: [{id: x, tenant: a, %s}]"

WRONG_FIELDS = [
    pytest.param(JOB % "gpus: 1.5", "jobs[0].gpus: must be 0, an integer or a fraction below 1, not 1.5", id="one and a half GPUs"),
    pytest.param(JOB % "gpus: -1", "jobs[0].gpus: must be between 0 and 256 GPUs, not -1", id="negative GPUs"),
    pytest.param(JOB % "gpus: two", "jobs[0].gpus: must be a number of GPUs, not str 'two'", id="GPUs in words"),
    pytest.param(JOB % "gpus: true", "jobs[0].gpus: must be a number of GPUs, not bool 'True'", id="true is no number"),
    pytest.param(JOB % "gpus: .nan", "jobs[0].gpus: must be a finite number of GPUs", id="not a number"),
    pytest.param(JOB % "gpus: 0.0005", "jobs[0].gpus: is finer than 0.001 GPU: 0.0005", id="finer than milli-GPU"),
    pytest.param(JOB % "at: 0.0001", "jobs[0].at: is finer than a millisecond: 0.0001", id="finer than a millisecond"),
    pytest.param(JOB % "limit: 0", "jobs[0].limit: must be more than 0 seconds", id="no time at all"),
    pytest.param(JOB % "run: 5m", "jobs[0].run: must be a number of seconds, not str '5m'", id="a unit in the value"),
    pytest.param(JOB % "replicas: 0", "jobs[0].replicas: must be between 1 and 100000, not 0", id="a gang of nobody"),
    pytest.param(JOB % "colour: red", "jobs[0].colour: unknown key", id="unknown key"),
    pytest.param("jobs: [{tenant: a}]", "jobs[0].id: is required", id="missing id"),
    pytest.param(JOB % "tenant2: a", "jobs[0].tenant2: unknown key", id="misspelt key"),
    pytest.param("jobs: [{id: x, tenant: b}]", "jobs[0].tenant: there is no tenant b", id="missing tenant"),
    pytest.param(JOB % "site: hue", "jobs[0].site: there is no site hue", id="missing site"),
    pytest.param(JOB % "site: hanoi, sites: [hanoi]", "jobs[0]: names both site and sites", id="two ways to name sites"),
    pytest.param(JOB % "depends_on: [y]", "jobs[0].depends_on[0]: there is no job y", id="missing dependency"),
    pytest.param(JOB % "depends_on: [x]", "jobs[0].depends_on: x depends on itself", id="ring of dependencies"),
    pytest.param(JOB % "gpu_model: [any, h200]", "jobs[0]: gpu_model: any stands alone", id="any beside a model"),
    pytest.param("jobs: [{id: x, tenant: a}, {id: x, tenant: a}]", "jobs[1].id: x stands twice, first at jobs[0].id", id="same id"),
    pytest.param("jobs: [{id: x, tenant: a, id: y}]", "jobs[0].id: stands twice", id="same key"),
    pytest.param("policy: {placement: worst_fit}", "policy.placement: input should be", id="unknown placement"),
    pytest.param("policy: {fair_sharing: 1}", "policy.fair_sharing: must be true or false, not int '1'", id="a number is no flag"),
    pytest.param("events: [{at: 1}]", "events[0]: needs exactly one of", id="event without an action"),
    pytest.param("events: [{at: 1, drain: m}]", "events[0].drain: there is no node m", id="missing node"),
    pytest.param('events: [{at: 1, device_fail: "n/8"}]', "events[0].device_fail: n has 8 devices", id="missing device"),
    pytest.param("events: [{at: 1, quota: {tenant: b}}]", "events[0].quota.tenant: there is no tenant or cohort b", id="quota of nobody"),
    pytest.param("until: -1", "until: lies before now", id="until before now"),
    pytest.param(
        "cohorts: [{name: c, quota: {h200: {nominal: 1, borrow: 1}}}]",
        "cohorts[0].quota.h200.borrow: there is nobody to borrow from without a parent",
        id="borrowing without a parent",
    ),
    pytest.param("cohorts: [{name: a}]", "tenants[0].name: a stands twice, first at cohorts[0].name", id="cohort named as a tenant"),
    pytest.param("cohorts: [{name: c, parent: d}]", "cohorts[0].parent: there is no cohort d", id="missing parent"),
    pytest.param(
        "cohorts: [{name: c, parent: d}, {name: d, parent: c}]", "cohorts[0].parent: its parents form a ring", id="ring of parents"
    ),
    pytest.param("cohorts: [{name: c, weight: -1}]", "cohorts[0].weight: must be 0 or more, not -1", id="negative weight"),
    pytest.param(
        "running: [{id: r, tenant: a, started: 1}]",
        "running[0].started: must be at or before now, and now before started + limit",
        id="running from the future",
    ),
    pytest.param(
        "running: [{id: r, tenant: a, started: 0, gpus: 2, node: n, devices: [0]}]",
        "running[0].devices: names 1 devices, gpus says 2",
        id="too few devices",
    ),
    pytest.param(
        "running: [{id: r, tenant: a, started: 0, node: n, devices: [0]}, {id: s, tenant: a, started: 0, node: n, devices: [0]}]",
        "running[1].devices: device 0 of n is already held by r",
        id="device held twice",
    ),
]


@pytest.mark.parametrize(("part", "message"), WRONG_FIELDS)
def test_wrong_field_is_named_by_its_path(part: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        reading.read(WORLD + part)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("[", "is not YAML: line ", id="no YAML"),
        pytest.param("[1]", "must be a mapping", id="a list"),
        pytest.param("scenario: 2", "scenario: must be between 1 and 1, not 2", id="another version"),
        pytest.param("{}", "scenario: is required", id="no version"),
        pytest.param("scenario: 1\nnow: &a 1\nuntil: *a", "until: aliases are not allowed", id="an alias"),
        pytest.param("scenario: 1\nnow: !!python/object:os.system 1", "is not YAML", id="a constructor"),
        pytest.param("scenario: 1\nnow: 2026-13-45", "cannot be read: month must be in 1..12", id="a date that does not exist"),
        pytest.param("scenario: " + "1" * 5000, "cannot be read: Exceeds the limit", id="digits by the thousand"),
        pytest.param("scenario: " + "[" * 100_000, "more than 1000 levels", id="brackets by the thousand"),
        pytest.param("- " * 100_000, "more than 1000 levels", id="lists by the thousand"),
        pytest.param("\n".join(" " * at + "a:" for at in range(1500)), "more than 1000 levels", id="indentation by the thousand"),
        pytest.param("scenario: 1\nseed: '" + "[" * 2000 + "'", "seed: must be an integer", id="brackets within a text"),
    ],
)
def test_file_that_is_no_scenario_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        reading.read(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("jobs: [{id: x, tenant: a, at: -5.001, gpus: 0.25, count: 3, every: 2}]", id="shared slices and a negative at"),
        pytest.param("jobs: [{id: x, tenant: a, slice: 1g.18gb, gpus: 2, gpu_model: [h200, l40s]}]", id="MIG slices"),
        pytest.param("running: [{id: r, tenant: a, started: 0, run: 9, gpu_model: any}]", id="started at now"),
        pytest.param("capacity_reservations: [{name: c, tenant: a, start: 1, end: 2, gpu_model: h200, gpus: 8}]", id="reservations"),
        pytest.param("policy: {victims: kueue, repack: {max_moved_ratio: 0.5}}", id="policies of the future"),
        pytest.param("generate: [{trace: openb, nodes: n.csv, jobs: p.csv, scale: 1.0}]", id="generated jobs"),
        pytest.param("cohorts: [{name: c, weight: 0.99}, {name: d, weight: 123456789, parent: c}]", id="any weight"),
        pytest.param("cohorts: [{name: c, parent: null, quota: {h200: {nominal: 0}, cpus: {}, memory_gib: {}}}]", id="CPUs and memory"),
        pytest.param("seed: 7\nuntil: 86400\nnow: 0.5", id="fractions of a second"),
    ],
)
def test_whole_format_is_accepted(part: str) -> None:
    assert reading.read(WORLD + part).scenario == 1
