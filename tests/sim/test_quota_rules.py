"""What quotas and capacity reservations may not say together: each error names the path of the field."""

from __future__ import annotations

import pytest

from scheduler.sim import reading
from tests.sim.scenarios import WORLD

PREEMPTION = "tenants[0].preemption.borrow_within_cohort: cannot be used together with policy.fair_sharing, which is on"
BORROWER = """
scenario: 1
cohorts: [{name: c}]
tenants: [{name: a, parent: c, preemption: {borrow_within_cohort: {policy: lower_priority}}}]
"""


def tree(tenant: str, *more: str) -> str:
    return "\n".join(("scenario: 1", "cohorts: [{name: c}]", f"tenants: [{{name: a, parent: c, {tenant}}}]", *more))


def reserved(*parts: str) -> str:
    return WORLD + "\n".join(("capacity_reservations:", *(f"  - {{tenant: a, {part}}}" for part in parts)))


def problems(text: str) -> list[str]:
    return [str(problem) for problem in reading.examine(text)[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(tree("quota: {h200: {nominal: 2, lend: 3}}"), "tenants[0].quota.h200.lend: is more than nominal", id="lends GPUs"),
        pytest.param(tree("quota: {cpus: {nominal: 2, lend: 2.5}}"), "tenants[0].quota.cpus.lend: is more than nominal", id="lends CPUs"),
        pytest.param(
            tree("quota: {}", "events: [{at: 1, quota: {tenant: a, h200: {nominal: 1, lend: 2}}}]"),
            "events[0].quota.h200.lend: is more than nominal",
            id="an event makes it lend too much",
        ),
        pytest.param(
            WORLD + "events: [{at: 1, quota: {tenant: a, h200: {nominal: 1, borrow: 2}}}]",
            "events[0].quota.h200.borrow: there is nobody to borrow from without a parent",
            id="an event makes a root borrow",
        ),
        pytest.param(
            tree("quota: {cpu: {nominal: 2}}"), "tenants[0].quota.cpu: cpu is no GPU model; cpus is the quota of CPUs", id="cpu for cpus"
        ),
        pytest.param(
            tree("quota: {memory: {nominal: 2}}"),
            "tenants[0].quota.memory: memory is no GPU model; memory_gib is the quota of memory",
            id="memory for memory_gib",
        ),
        pytest.param(
            "scenario: 1\nnodes: [{name: n, gpu_model: any, gpus: 1}]",
            "nodes[0].gpu_model: any stands for every GPU model, so none can be called so",
            id="a model called any",
        ),
        pytest.param(BORROWER, PREEMPTION, id="fair sharing by default"),
        pytest.param(BORROWER + "policy: {fair_sharing: true}", PREEMPTION, id="fair sharing by choice"),
    ],
)
def test_what_does_not_fit_together_is_named(text: str, message: str) -> None:
    assert problems(text) == [message]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(tree("quota: {h200: {nominal: 2, lend: 2}}"), id="lends all that it has"),
        pytest.param(tree("quota: {h200: {nominal: null, lend: 5}}"), id="lends some of an unlimited quota"),
        pytest.param(tree("quota: {}", "policy: {}").replace("{name: c}", "{name: c, quota: {h200: {lend: 9}}}"), id="a cohort lends on"),
        pytest.param(BORROWER + "policy: {fair_sharing: false}", id="borrowing preemption without fair sharing"),
    ],
)
def test_what_fits_together_is_accepted(text: str) -> None:
    assert problems(text) == []


def test_a_tenant_with_projects_may_lend_what_they_lend_to_it() -> None:
    tenants = "{name: a, parent: c, quota: {h200: {lend: 4}}}, {name: p, parent: a, quota: {h200: {nominal: 4}}}"
    assert problems(f"scenario: 1\ncohorts: [{{name: c}}]\ntenants: [{tenants}]") == []


def test_reservations_beyond_capacity_name_the_one_that_starts_last() -> None:
    text = reserved(
        "name: late, start: 50, end: 90, gpu_model: h200, gpus: 4",
        "name: early, start: 0, end: 60, gpu_model: h200, gpus: 5",
    )
    assert problems(text) == [
        "capacity_reservations[0].gpus: at its start 9 GPUs of h200 are set aside together with early, the nodes have 8 GPUs"
    ]


def test_reservation_may_start_when_another_ends() -> None:
    assert problems(reserved(*(f"name: r{at}, start: {at}, end: {at + 1}, gpu_model: h200, gpus: 8" for at in (1, 0, 2)))) == []


def test_reservation_of_a_model_that_no_node_has_is_beyond_capacity() -> None:
    assert problems(reserved("name: r, start: 0, end: 1, gpu_model: l40s, gpus: 0.5")) == [
        "capacity_reservations[0].gpus: at its start 0.5 GPUs of l40s are set aside, the nodes have 0 GPUs"
    ]
